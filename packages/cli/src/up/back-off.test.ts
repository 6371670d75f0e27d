import assert from 'node:assert/strict'
import { test } from 'node:test'
import { BACK_OFF, BackOff } from './back-off.ts'

test('waits double up to a bound, and begin anew after a healthy run', () => {
  const backOff = new BackOff({ first: 10, longest: 60, healthy: 1000 })
  assert.deepEqual(
    [0, 999, 5, 0, 0, 1000, 0].map((ran) => backOff.after(ran)),
    [10, 20, 40, 60, 60, 10, 20],
  )
  const long = new BackOff()
  const waits = Array.from({ length: 100 }, () => long.after(0))
  assert.ok(waits.every((wait, at) => wait <= BACK_OFF.longest && wait >= (waits[at - 1] ?? 0)))
})
