import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Turns } from './turns.ts'

const never = new AbortController().signal

test('at most so many run at once, in order, and one in the background', async () => {
  const work = fc.array(fc.record({ background: fc.boolean(), ticks: fc.integer({ min: 0, max: 5 }) }), {
    maxLength: 30,
  })
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 5 }), work, async (limit, pieces) => {
      const turns = new Turns(limit)
      const running = { foreground: 0, background: 0 }
      const started: number[] = []
      await Promise.all(
        pieces.map(({ background, ticks }, index) =>
          turns.run(
            async () => {
              const kind = background ? 'background' : 'foreground'
              if (!background) started.push(index)
              running[kind]++
              assert.ok(running.foreground <= limit)
              assert.ok(running.background <= 1)
              for (let tick = 0; tick < ticks; tick++) await null
              running[kind]--
            },
            never,
            background,
          ),
        ),
      )
      assert.deepEqual(
        started,
        started.toSorted((a, b) => a - b),
      )
    }),
  )
})

test('background work waits until nothing else runs or waits, and then holds nobody up', async () => {
  const turns = new Turns(1)
  const order: string[] = []
  const { promise: block, resolve: unblock } = Promise.withResolvers<void>()
  const { promise: hold, resolve: release } = Promise.withResolvers<void>()
  const work = [
    turns.run(() => block, never),
    turns.run(
      async () => {
        order.push('background')
        await hold
      },
      never,
      true,
    ),
    turns.run(async () => order.push('second'), never),
  ]
  unblock()
  await work[2]
  while (order.length < 2) await new Promise(setImmediate)
  work.push(turns.run(async () => order.push('third'), never))
  await work[3]
  release()
  await Promise.all(work)
  assert.deepEqual(order, ['second', 'background', 'third'])
})

test('background work is not begun between two pieces that follow each other', async () => {
  const turns = new Turns(1, 200)
  const order: string[] = []
  await turns.run(async () => order.push('first'), never)
  const background = turns.run(async () => order.push('background'), never, true)
  await new Promise(setImmediate)
  await turns.run(async () => order.push('second'), never)
  await background
  assert.deepEqual(order, ['first', 'second', 'background'])
})

test('who gives up waiting takes no turn, and a failure gives the turn back', async () => {
  const turns = new Turns(1)
  const abort = new AbortController()
  const { promise: block, resolve: unblock } = Promise.withResolvers<void>()
  const first = turns.run(() => block, never)
  const second = turns.run(async () => assert.fail('it was given up'), abort.signal)
  const third = turns.run(async () => Promise.reject(new Error('failed')), never)
  const fourth = turns.run(async () => 'done', never)
  abort.abort(new Error('given up'))
  await assert.rejects(second, /given up/)
  unblock()
  await first
  await assert.rejects(third, /failed/)
  assert.equal(await fourth, 'done')
  await assert.rejects(
    turns.run(async () => 'late', abort.signal),
    /given up/,
  )
})
