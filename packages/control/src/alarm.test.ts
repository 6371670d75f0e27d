import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Alarm } from './alarm.ts'

test('a time that a jump of the clock has brought near is met within a minute', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] })
  let now = Date.parse('2026-01-01T00:00:00Z')
  t.mock.method(Date, 'now', () => now)
  const due = now + 3_600_000
  let looks = 0
  const looked = () => new Promise((resolve) => setImmediate(resolve))
  const stopping = new AbortController()
  const alarm = new Alarm(
    async () => {
      looks += 1
      return Date.now() < due ? due : undefined
    },
    () => undefined,
    stopping.signal,
  )
  alarm.changed()
  await looked()
  assert.equal(looks, 1)
  now = due
  t.mock.timers.tick(60_000)
  await looked()
  assert.equal(looks, 2)
  stopping.abort()
})
