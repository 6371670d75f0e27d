import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setImmediate as pass } from 'node:timers/promises'
import fc from 'fast-check'
import { isError } from './errors.ts'
import { FairTurns } from './fair-turns.ts'

/** Work that ends when it is told to, and what has begun so far. */
function workshop(turns: FairTurns) {
  const begun: string[] = []
  const ends = new Map<string, () => void>()
  const start = (name: string, signal = AbortSignal.timeout(10_000)) => {
    const { promise, resolve } = Promise.withResolvers<void>()
    ends.set(name, resolve)
    const work = () => {
      begun.push(name)
      return promise
    }
    return turns.run(name.charAt(0), work, signal)
  }
  const end = async (name: string) => {
    ends.get(name)?.()
    await pass()
  }
  return { begun, start, end }
}

test('one owner has its share, and a free place goes around', async () => {
  const { begun, start, end } = workshop(
    new FairTurns('pulls', { each: 2, inAll: 3, eachWaiting: 10, inAllWaiting: 20 }),
  )
  const all = ['a1', 'a2', 'a3', 'a4', 'a5', 'b1', 'b2', 'c1'].map((name) => start(name))
  await pass()
  assert.deepEqual(begun, ['a1', 'a2', 'b1'], 'the third place is not for the same owner')
  await end('a1')
  assert.equal(begun.at(-1), 'a3')
  await end('a2')
  assert.equal(begun.at(-1), 'b2', 'the other owners come before the first comes again')
  await end('b1')
  assert.equal(begun.at(-1), 'c1')
  for (const name of ['a3', 'b2', 'c1', 'a4', 'a5']) await end(name)
  await Promise.all(all)
  assert.deepEqual(begun.toSorted(), ['a1', 'a2', 'a3', 'a4', 'a5', 'b1', 'b2', 'c1'])
})

test('who waits beyond the bound is refused, and who gives up takes no turn', async () => {
  const { begun, start, end } = workshop(new FairTurns('pulls', { each: 1, inAll: 1, eachWaiting: 2, inAllWaiting: 3 }))
  const ending = new AbortController()
  const first = start('a1')
  const given = start('a2', ending.signal)
  const third = start('a3')
  await assert.rejects(start('a4'), (error) => isError(error, 'TooManyRequests'))
  const other = start('b1')
  await assert.rejects(start('c1'), (error) => isError(error, 'TooManyRequests'))
  ending.abort(new Error('given up'))
  await assert.rejects(given, /given up/)
  for (const name of ['a1', 'a3', 'b1', 'a3']) await end(name)
  await Promise.all([first, third, other])
  assert.deepEqual(begun, ['a1', 'a3', 'b1'])
})

const never = new AbortController().signal

test('projects take turns, however many pieces one of them has waiting', async () => {
  const turns = new FairTurns('transfers', { inAll: 1 })
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
      const turns = new FairTurns('transfers', { inAll: limit })
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
