import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SharedWork } from './shared-work.ts'

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
