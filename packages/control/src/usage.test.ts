import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SANDBOX_STATES, type SandboxState, type Usage } from '@icebox/model'
import fc from 'fast-check'
import { usageAfter } from './usage.ts'

const at = (second: number) => new Date(second * 1000).toISOString()

test('the seconds of a life are those in which it ran or was being paused', () => {
  const step = fc.record({ state: fc.constantFrom(...SANDBOX_STATES), lasts: fc.nat(100) })
  fc.assert(
    fc.property(fc.array(step), (life) => {
      let usage: Usage = { runningSeconds: 0 }
      let now = 0
      let expected = 0
      for (const { state, lasts } of life) {
        usage = usageAfter(usage, state, at(now))
        now += lasts
        if (state === 'running' || state === 'pausing') expected += lasts
      }
      assert.deepEqual(usageAfter(usage, 'deleting', at(now)), { runningSeconds: expected })
    }),
  )
})

test('the same state written again counts nothing twice', () => {
  const states: SandboxState[] = ['running', 'running', 'failed', 'failed']
  const usage = states.reduce<Usage>((sum, state, second) => usageAfter(sum, state, at(second)), { runningSeconds: 0 })
  assert.deepEqual(usage, { runningSeconds: 2 })
})

test('a run whose end is told to be before its begin counts nothing', () => {
  const running = usageAfter({ runningSeconds: 5 }, 'running', at(100))
  assert.deepEqual(usageAfter(running, 'failed', at(90)), { runningSeconds: 5 })
})
