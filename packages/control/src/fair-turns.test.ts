import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { FairTurns } from './fair-turns.ts'

const never = new AbortController().signal

test('projects take turns, however many pieces one of them has waiting', async () => {
  const turns = new FairTurns(1)
  const gate = Promise.withResolvers<void>()
  const order: string[] = []
  const work = (name: string) => async () => {
    order.push(name)
  }
  const first = turns.run('much', () => gate.promise, never)
  const rest = [
    ...Array.from({ length: 5 }, (_, i) => turns.run('much', work(`much ${i}`), never)),
    turns.run('little', work('little 0'), never),
    turns.run('other', work('other 0'), never),
    turns.run('little', work('little 1'), never),
  ]
  gate.resolve()
  await Promise.all([first, ...rest])
  assert.deepEqual(order.slice(0, 3), ['much 0', 'little 0', 'other 0'])
  assert.deepEqual(order.slice(3, 5), ['much 1', 'little 1'])
  assert.deepEqual(order.slice(5), ['much 2', 'much 3', 'much 4'])
})

test('never more than the limit run, whoever gives up or fails, and all others come to their turn', async () => {
  const piece = fc.record({
    project: fc.constantFrom('a', 'b', 'c'),
    fate: fc.constantFrom('ends', 'fails', 'gives up'),
  })
  await fc.assert(
    fc.asyncProperty(fc.array(piece, { maxLength: 30 }), fc.integer({ min: 1, max: 4 }), async (pieces, limit) => {
      const turns = new FairTurns(limit)
      let running = 0
      let most = 0
      const results = await Promise.allSettled(
        pieces.map(({ project, fate }) => {
          const giving = new AbortController()
          const run = turns.run(
            project,
            async () => {
              running += 1
              most = Math.max(most, running)
              await new Promise(setImmediate)
              running -= 1
              if (fate === 'fails') throw new Error('it failed')
            },
            giving.signal,
          )
          if (fate === 'gives up') giving.abort()
          return run
        }),
      )
      assert.ok(most <= limit)
      assert.equal(running, 0)
      for (const [i, { status }] of results.entries()) if (pieces[i]?.fate === 'ends') assert.equal(status, 'fulfilled')
    }),
  )
})
