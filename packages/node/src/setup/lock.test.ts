import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { withLock } from './lock.ts'

const MODULE = new URL('./lock.ts', import.meta.url).href
const minute = () => AbortSignal.timeout(60_000)

async function lockFile(t: { after(clean: () => Promise<void>): void }): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'lock-'))
  t.after(() => rm(directory, { recursive: true, force: true }))
  return join(directory, 'not', 'yet', 'there.lock')
}

/** A process that takes the lock, says so, and keeps it. */
async function holder(path: string) {
  const script = `import { withLock } from ${JSON.stringify(MODULE)}
    await withLock(${JSON.stringify(path)}, async () => { console.log('held'); await new Promise((r) => setTimeout(r, 1e6)) }, AbortSignal.timeout(60_000))`
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(child.stdout, 'data')
  return child
}

test('work under one lock is done one at a time', async (t) => {
  const path = await lockFile(t)
  let inside = 0
  let most = 0
  const work = async () => {
    most = Math.max(most, ++inside)
    await new Promise((resolve) => setTimeout(resolve, 5))
    return --inside
  }
  const results = await Promise.all(Array.from({ length: 4 }, () => withLock(path, work, minute())))
  assert.deepEqual([results, most], [[0, 0, 0, 0], 1])
})

test('another process’s lock is waited for, until abort; that of a killed process is free', async (t) => {
  const path = await lockFile(t)
  const child = await holder(path)
  t.after(async () => void child.kill('SIGKILL'))
  await assert.rejects(
    withLock(path, async () => 'taken', AbortSignal.timeout(300)),
    { name: /Abort|Timeout/ },
  )
  const waiting = withLock(path, async () => 'taken', minute())
  child.kill('SIGKILL')
  assert.equal(await waiting, 'taken')
})

test('a failure of the work gives up the lock', async (t) => {
  const path = await lockFile(t)
  await assert.rejects(
    withLock(path, () => Promise.reject(new Error('work')), minute()),
    /work/,
  )
  assert.equal(await withLock(path, async () => 'again', minute()), 'again')
})
