import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { IceboxError } from '@icebox/model'
import { sandboxAlarm } from './expiry.ts'
import { Records } from './records.ts'
import { openTestStore, SPEC, statusOf } from './testing.ts'

const NOW = Date.parse('2026-01-01T00:00:00Z')
const secondsFrom = (start: number) => Math.round((Date.now() - start) / 1000)

/** The clock that nobody sets, which the timers of tests do not have. */
function ownClock(t: TestContext): { passed: number } {
  const clock = { passed: 0 }
  t.mock.method(performance, 'now', () => clock.passed)
  return clock
}

test('an end that cannot be carried out is tried again after twice as long each time; an extension begins anew', async (t) => {
  const stopping = new AbortController()
  t.after(() => stopping.abort())
  const { store } = await openTestStore(t)
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: NOW })
  const clock = ownClock(t)
  const records = new Records(store, 'mine', () => undefined)
  const at = (seconds: number) => new Date(Date.now() + seconds * 1000).toISOString()
  const spec = { ...SPEC, onTimeout: 'pause' as const, expiresAt: at(5) }
  await records.create('Sandbox', 'one', { spec, status: statusOf('running') })

  let start = Date.now()
  let tries: number[] = []
  let told: unknown[] = []
  let isFull = true
  const expire = async () => {
    tries.push(secondsFrom(start))
    if (isFull) throw new IceboxError('NoSpace', 'the disk is full')
    await records.remove('Sandbox', 'one')
  }
  const log = (_level: string, event: string, facts: Record<string, unknown>) => {
    if (event === 'expiry.failed') told.push([facts.failures, facts.retryAfterSeconds])
  }
  const alarm = sandboxAlarm(records, expire, log, stopping.signal)
  const pass = async (seconds: number) => {
    for (let passed = 0; passed < seconds; passed += 1) {
      clock.passed += 1000
      t.mock.timers.tick(1000)
      for (let turn = 0; turn < 10; turn += 1) await new Promise((resolve) => setImmediate(resolve))
    }
  }
  alarm.changed()
  await pass(920)
  assert.deepEqual(tries, [5, 15, 35, 75, 155, 315, 615, 915])
  assert.deepEqual(
    told,
    [10, 20, 40, 80, 160, 300, 300, 300].map((seconds, index) => [index + 1, seconds]),
  )

  start = Date.now()
  tries = []
  told = []
  const expiresAt = at(3)
  await records.setSpec('Sandbox', 'one', (sandbox) => ({ ...sandbox.spec, expiresAt }))
  alarm.at(expiresAt)
  await pass(5)
  isFull = false
  await pass(600)
  assert.deepEqual(tries, [3, 13])
  assert.deepEqual(told, [[1, 10]])
})

test('a clock that is set brings the next try neither nearer nor further away', async (t) => {
  const stopping = new AbortController()
  t.after(() => stopping.abort())
  const { store } = await openTestStore(t)
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: NOW })
  const clock = ownClock(t)
  const records = new Records(store, 'mine', () => undefined)
  const spec = { ...SPEC, onTimeout: 'pause' as const, expiresAt: new Date(NOW - 1000).toISOString() }
  await records.create('Sandbox', 'one', { spec, status: statusOf('running') })
  let tries = 0
  const expire = async () => {
    tries += 1
    throw new IceboxError('NoSpace', 'the disk is full')
  }
  const alarm = sandboxAlarm(records, expire, () => {}, stopping.signal)
  const turns = async () => {
    for (let turn = 0; turn < 10; turn += 1) await new Promise((resolve) => setImmediate(resolve))
  }
  alarm.changed()
  await turns()
  assert.equal(tries, 1)
  t.mock.timers.setTime(NOW + 3_600_000)
  alarm.changed()
  await turns()
  assert.equal(tries, 1, 'an hour ahead')
  // Not before the end itself, which is by the clock that everybody reads.
  t.mock.timers.setTime(NOW)
  clock.passed += 10_000
  alarm.changed()
  await turns()
  assert.equal(tries, 2, 'an hour back')
})
