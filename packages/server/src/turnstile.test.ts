import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Turnstile } from './turnstile.ts'

test('a project that takes all it can, by however many sandboxes, leaves some for the next', () => {
  const turnstile = new Turnstile({ each: 8, inAll: 100 }, { each: 'of one', inAll: 'of all' })
  const enterAll = (project: string): (() => void)[] => {
    const leaves: (() => void)[] = []
    try {
      for (let sandbox = 0; ; sandbox++) leaves.push(turnstile.enter(`${project}-${sandbox}`, project))
    } catch (thrown) {
      assert.ok(thrown instanceof Error && 'code' in thrown)
      assert.equal(thrown.code, 'TooManyRequests')
      return leaves
    }
  }
  const first = enterAll('first')
  assert.equal(first.length, 80)
  assert.ok(enterAll('second').length >= 10)
  turnstile.enter('third-0', 'third')
  for (const leave of first) leave()
  turnstile.enter('first-0', 'first')
})
