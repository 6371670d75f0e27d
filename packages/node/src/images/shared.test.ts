import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SharedWork, Turns } from './shared.ts'

const never = new AbortController().signal

test('work is shared while it runs, and begins anew afterwards', async () => {
  const shared = new SharedWork<number>()
  let runs = 0
  const { promise: gate, resolve: open } = Promise.withResolvers<void>()
  const work = async () => {
    runs++
    await gate
    return runs
  }
  const both = [shared.run('a', work, () => {}, never), shared.run('a', work, () => {}, never)]
  const other = shared.run('b', work, () => {}, never)
  open()
  assert.deepEqual(await Promise.all(both), [2, 2])
  await other
  assert.equal(await shared.run('a', work, () => {}, never), 3)
})

test('work ends when the last one gives up, and a failure is told to all', async () => {
  const shared = new SharedWork<never>()
  let ended = false
  const waiting = (_: unknown, signal: AbortSignal) =>
    new Promise<never>((_, reject) => {
      signal.addEventListener('abort', () => {
        ended = true
        reject(new Error('ended'))
      })
    })
  const one = new AbortController()
  const two = new AbortController()
  const first = shared.run('a', waiting, () => {}, one.signal)
  const second = shared.run('a', waiting, () => {}, two.signal)
  one.abort(new Error('one gives up'))
  await assert.rejects(first, /one gives up/)
  assert.ok(!ended)
  two.abort(new Error('two gives up'))
  await assert.rejects(second, /two gives up/)
  assert.ok(ended)
  const failing = async () => {
    throw new Error('no luck')
  }
  const results = await Promise.allSettled([
    shared.run('x', failing, () => {}, never),
    shared.run('x', failing, () => {}, never),
  ])
  assert.deepEqual(
    results.map(({ status }) => status),
    ['rejected', 'rejected'],
  )
  await assert.rejects(
    shared.run('a', failing, () => {}, AbortSignal.abort(new Error('too late'))),
    /too late/,
  )
})

test('turns are taken in order, a few at a time', async () => {
  const turns = new Turns(2)
  let running = 0
  let most = 0
  const order: number[] = []
  const work = (i: number) => async () => {
    order.push(i)
    most = Math.max(most, ++running)
    await new Promise(setImmediate)
    running--
    if (i === 3) throw new Error('the third')
  }
  const results = await Promise.allSettled([1, 2, 3, 4, 5].map((i) => turns.take(work(i), never)))
  assert.deepEqual(order, [1, 2, 3, 4, 5])
  assert.equal(most, 2)
  assert.equal(results.filter(({ status }) => status === 'rejected').length, 1)
})

test('who gives up while waiting leaves the others their turn', async () => {
  const turns = new Turns(1)
  const { promise: gate, resolve: open } = Promise.withResolvers<void>()
  const first = turns.take(() => gate, never)
  const ending = new AbortController()
  const second = turns.take(async () => assert.fail('it gave up'), ending.signal)
  const third = turns.take(async () => 'third', never)
  ending.abort(new Error('gone'))
  await assert.rejects(second, /gone/)
  open()
  await first
  assert.equal(await third, 'third')
})
