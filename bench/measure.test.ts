import assert from 'node:assert/strict'
import { test } from 'node:test'
import { atMost, figures, interleave, REPORTED, result } from './measure.ts'

test('figures are the middle and the value that one in twenty exceeds', () => {
  const values = Array.from({ length: 101 }, (_, index) => (index * 37) % 101)
  assert.deepEqual(figures(values), { p50: 50, p95: 95, n: 101 })
  assert.deepEqual(figures([3]), { p50: 3, p95: 3, n: 1 })
  assert.deepEqual(figures([1, 2]).p50, 1.5)
  assert.throws(() => figures([]), /nothing was measured/)
})

test('a bound is held or missed by the medians', () => {
  const floor = [10, 10, 1000]
  assert.equal(result('x', 'ms', { ours: [12, 13, 500], floor }, atMost(1.3)).ok, true)
  assert.equal(result('x', 'ms', { ours: [14, 14, 14], floor }, atMost(1.3)).ok, false)
  assert.equal(result('x', 'ms', { ours: [14, 14, 14], floor }, atMost(1.3)).ratio, 1.4)
  assert.equal(result('x', 'ms', { ours: [14, 14, 14], floor }, REPORTED).ok, true)
})

test('contestants take turns, and the first round does not count', async () => {
  const turns: string[] = []
  const contestant = (name: string) => async () => {
    turns.push(name)
    return [turns.length]
  }
  const never = new AbortController().signal
  const values = await interleave(2, { a: contestant('a'), b: contestant('b') }, never)
  assert.deepEqual(turns, ['a', 'b', 'a', 'b', 'a', 'b'])
  assert.deepEqual(values, { a: [3, 5], b: [4, 6] })
  await assert.rejects(interleave(1, { a: contestant('a') }, AbortSignal.abort(new Error('enough'))), /enough/)
})
