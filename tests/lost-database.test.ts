import assert from 'node:assert/strict'
import { copyFile, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { openIcebox, type RunningIcebox } from '@icebox/cli'
import { DEFAULT_PROJECT, isError, newSnapshotId, type SnapshotId } from '@icebox/model'
import { Icebox } from '@icebox/sdk'
import { openDataDirectory, openKeyring, openSnapshots } from '@icebox/snapshot'
import { openSqliteStore } from '@icebox/store'

const DIGEST = `sha256:${'5'.repeat(64)}`
const SIZE = { cpu: 1, memoryMiB: 256, diskMiB: 1024 }
const signal = () => AbortSignal.timeout(60_000)

async function directoryOf(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'icebox-lost-'))
  t.after(async () => {
    const { run, close } = await openDataDirectory(directory)
    await close()
    await rm(directory, { recursive: true, force: true })
    await rm(run, { recursive: true, force: true })
  })
  return directory
}

const up = (dataDirectory: string, forget = false): Promise<RunningIcebox> =>
  openIcebox(
    {
      dataDirectory,
      reach: { listen: { host: '127.0.0.1', port: 0 } },
      report: () => undefined,
      slots: 0,
      forget,
      onShutdown: () => undefined,
    },
    signal(),
  )

/** Starts a server and ends it again, having looked at it. */
async function visit<T>(directory: string, look: (icebox: Icebox) => Promise<T>, forget = false): Promise<T> {
  const server = await up(directory, forget)
  try {
    return await look(new Icebox({ url: server.url, dataDirectory: directory }))
  } finally {
    await server.close('keep', signal())
  }
}

/** The bytes of a snapshot, as a save leaves them; with a record in that state, when one is given. */
async function snapshotIn(directory: string, record?: 'creating' | 'ready'): Promise<SnapshotId> {
  const data = await openDataDirectory(directory)
  const snapshots = openSnapshots({ directory: data.snapshots, tmp: data.tmp, keyring: await openKeyring(data.path) })
  const store = await openSqliteStore(data.database)
  try {
    const id = newSnapshotId()
    if (record !== undefined)
      await store.create(
        'Snapshot',
        { namespace: DEFAULT_PROJECT, name: id },
        {
          spec: { kind: 'filesystem', sandbox: '', execution: '', imageName: '', size: SIZE, env: {}, purpose: 'user' },
          status: { state: record, lastTransitionAt: new Date().toISOString() },
        },
        signal(),
      )
    const draft = await snapshots.begin(id, 1_000_000, signal())
    await writeFile(join(draft.directory, 'pages.img'), 'p'.repeat(100_000))
    await draft.commit(
      {
        kind: 'filesystem',
        files: ['pages.img'],
        driver: { name: 'gvisor', version: '1', digest: DIGEST, flags: [], cpuFeatures: [] },
        size: SIZE,
        imageDigest: DIGEST,
        agent: { version: '1', digest: DIGEST },
        labels: {},
        env: {},
      },
      signal(),
    )
    return id
  } finally {
    await store.close()
    await snapshots.close(signal())
    await data.close()
  }
}

const stored = async (directory: string) => (await readdir(join(directory, 'snapshots'))).sort()

const refusal = (count: number, state: RegExp) => (thrown: unknown) => {
  assert.ok(isError(thrown, 'InvalidState'), String(thrown))
  assert.match(thrown.message, new RegExp(`\\b${count} snapshots? \\(1 MiB, taken from \\d{4}-.* to \\d{4}-`))
  assert.match(thrown.message, state)
  assert.match(thrown.remedy, /icebox\.db/)
  assert.match(thrown.remedy, /--forget/)
  assert.equal(thrown.details.snapshots, count)
  return true
}

test('a server whose database is missing does not start, changes nothing, and starts again with the database', async (t) => {
  const directory = await directoryOf(t)
  const ids = [await snapshotIn(directory, 'ready'), await snapshotIn(directory, 'ready')].sort()
  await copyFile(join(directory, 'icebox.db'), join(directory, 'saved.db'))
  await rm(join(directory, 'icebox.db'))
  for (const _ of [1, 2]) {
    await assert.rejects(up(directory), refusal(2, /missing/))
    assert.deepEqual(await stored(directory), ids)
    const left = await readdir(directory)
    assert.deepEqual(
      left.filter((name) => name.startsWith('icebox.db')),
      [],
    )
  }
  await copyFile(join(directory, 'saved.db'), join(directory, 'icebox.db'))
  const listed = await visit(directory, (icebox) => Array.fromAsync(icebox.snapshots.list()))
  assert.deepEqual(listed.map(({ id, status }) => [id, status.state]).sort(), ids.map((id) => [id, 'Ready']).sort())
})

test('a server whose database is older than its snapshots does not start; with forget it starts without them', async (t) => {
  const directory = await directoryOf(t)
  const kept = await snapshotIn(directory, 'ready')
  const before = await readFile(join(directory, 'icebox.db'))
  const later = await snapshotIn(directory, 'ready')
  await writeFile(join(directory, 'icebox.db'), before)
  await assert.rejects(up(directory), refusal(1, /older/))
  assert.deepEqual(await stored(directory), [kept, later].sort())
  const listed = await visit(directory, (icebox) => Array.fromAsync(icebox.snapshots.list()), true)
  assert.deepEqual(
    listed.map(({ id }) => id),
    [kept],
  )
  assert.deepEqual(await stored(directory), [kept])
  await visit(directory, (icebox) => icebox.health())
})

test('bytes whose record was written before them, and nothing after, are those of an interrupted save: the server starts', async (t) => {
  const directory = await directoryOf(t)
  const id = await snapshotIn(directory, 'creating')
  const [snapshot] = await visit(directory, (icebox) => Array.fromAsync(icebox.snapshots.list()))
  assert.deepEqual([snapshot?.id, snapshot?.status.state], [id, 'Ready'])
  assert.deepEqual(await stored(directory), [id])
})
