import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { mkdtemp, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { bootId, endOf, markTold, readDeaths, recordDeath, recordUnseenDeath, untoldDeaths } from './deaths.ts'

const STARTED = '2026-01-01T00:00:00.000Z'
const SEEN = '2026-01-01T01:00:00.000Z'

async function dataDirectory(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'icebox-deaths-'))
  t.after(() => rm(directory, { recursive: true, force: true }))
  await writeFile(join(directory, 'lock'), '')
  return directory
}

/** As a server that died leaves it. */
async function leave(directory: string, said: object = {}): Promise<void> {
  const server = {
    url: 'http://127.0.0.1:1',
    pid: 4711,
    startedAt: STARTED,
    startTime: '1',
    boot: await bootId(),
    ...said,
  }
  await writeFile(join(directory, 'server.json'), JSON.stringify(server))
  await writeFile(join(directory, 'boot'), '')
  await utimes(join(directory, 'boot'), new Date(SEEN), new Date(SEEN))
}

const report = (trigger: string, event: string, message: string) => ({
  header: { event, trigger, processId: 4711, dumpEventTimeStamp: String(Date.parse(SEEN)) },
  javascriptStack: { message, stack: ['at somewhere (file:1:1)', 'at elsewhere'] },
})

const unseen = async (directory: string) => {
  await recordUnseenDeath(directory)
  return (await readDeaths(directory)).recent.map(({ cause, at, pid }) => [cause, at, pid])
}

test('a death that nobody saw is found by what it left, once', async (t) => {
  const directory = await dataDirectory(t)
  assert.deepEqual(await unseen(directory), [])
  await leave(directory)
  assert.deepEqual(await unseen(directory), [['Unknown', SEEN, 4711]])
  assert.equal(existsSync(join(directory, 'server.json')), false)
  assert.deepEqual(await unseen(directory), [['Unknown', SEEN, 4711]])
  // The supervisor has told of it already.
  await leave(directory)
  assert.equal((await unseen(directory)).length, 1)
})

test('what Node and systemd said of the end is its cause, and a host that went down is one', async (t) => {
  const file = async (name: string, content: unknown, said?: object) => {
    const directory = await dataDirectory(t)
    await leave(directory, said)
    await writeFile(join(directory, name), typeof content === 'string' ? content : JSON.stringify(content))
    return (await unseen(directory))[0]?.[0]
  }
  const heap = report('OOMError', 'Allocation failed - JavaScript heap out of memory', 'No stack.')
  assert.equal(await file('crash-report.json', heap), 'OutOfHeap')
  assert.equal(await file('crash-report.json', report('Exception', 'Exception', 'Error: why')), 'Exception')
  assert.equal(await file('crash-report.json', heap, { ending: true }), 'OutOfHeap')
  // Of a process before it with the same number.
  assert.equal(await file('crash-report.json', heap, { startedAt: '2026-01-02T00:00:00.000Z' }), 'Unknown')
  assert.equal(await file('crash-report.json', '{'), 'Unknown')
  assert.equal(await file('service-result', 'oom-kill killed KILL\n'), 'OutOfMemory')
  assert.equal(await file('service-result', 'signal killed KILL\n'), 'Killed')
  assert.equal(await file('service-result', 'core-dump dumped SEGV\n'), 'Crashed')
  assert.equal(await file('service-result', 'exit-code exited 1\n'), 'Failed')
  assert.equal(await file('service-result', '\u0000'), 'Unknown')
  assert.equal(await file('none', '', { boot: 'another' }), 'HostRestarted')
  assert.equal(await file('none', '', { ending: true }), undefined)
})

test('the kernel is named where it says that it was it', () => {
  assert.equal(endOf(null, 'SIGKILL', true).cause, 'OutOfMemory')
  assert.match(endOf(null, 'SIGKILL', false).message, /dmesg/)
  assert.deepEqual([endOf(null, 'SIGSEGV', false).cause, endOf(1, null, false).cause], ['Crashed', 'Failed'])
})

test('all are counted and the newest kept; each is told once; the file stays small and private', async (t) => {
  const directory = await dataDirectory(t)
  for (let pid = 1; pid <= 60; pid++)
    await recordDeath(directory, { at: SEEN, pid, cause: 'Exception', message: 'x'.repeat(100_000) })
  const { counts, recent } = await readDeaths(directory)
  assert.deepEqual([counts, recent.length, recent[0]?.pid], [{ Exception: 60 }, 50, 11])
  assert.equal((await untoldDeaths(directory)).untold.length, 50)
  await markTold(directory)
  assert.deepEqual(await untoldDeaths(directory), { counts: { Exception: 60 }, untold: [] })
  const { size, mode } = await stat(join(directory, 'deaths.json'))
  assert.ok(size < 100_000)
  assert.equal(mode & 0o777, 0o600)
  await writeFile(join(directory, 'deaths.json'), '{"counts":')
  assert.deepEqual(await readDeaths(directory), { counts: {}, recent: [] })
})

test('a directory that is not ours is left as it is', async (t) => {
  const directory = await dataDirectory(t)
  await rm(join(directory, 'lock'))
  await recordDeath(directory, { at: SEEN, pid: 1, cause: 'Crashed', message: '' })
  assert.equal(existsSync(join(directory, 'deaths.json')), false)
  assert.equal(await readFile(join(directory, 'deaths.json'), 'utf8').catch(() => 'none'), 'none')
})
