import assert from 'node:assert/strict'
import { test } from 'node:test'
import { IceboxError } from '@icebox/model'
import { sandboxAlarm } from './expiry.ts'
import { openTestStore, SPEC, statusOf } from './testing.ts'

const NOW = Date.parse('2026-01-01T00:00:00Z')
const secondsFrom = (start: number) => Math.round((Date.now() - start) / 1000)

test('an end that cannot be carried out is tried again after twice as long each time; an extension begins anew', async (t) => {
  const stopping = new AbortController()
  t.after(() => stopping.abort())
  const { cache, recordsOf } = await openTestStore(t)
  t.mock.timers.enable({ apis: ['setTimeout', 'Date'], now: NOW })
  const records = recordsOf('mine')
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
  const find = ({ name }: { name: string }) => records.find('Sandbox', name)
  // The clock of the test is the one on the wall, which is held.
  const alarm = sandboxAlarm(cache, find, expire, log, stopping.signal, Date.now)
  const pass = async (seconds: number) => {
    for (let passed = 0; passed < seconds; passed += 1) {
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
