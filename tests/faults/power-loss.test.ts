import assert from 'node:assert/strict'
import { mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { newSnapshotId, type SnapshotId } from '@icebox/model'
import { type ManifestInput, openDataDirectory, openKeyring, openSnapshots, type Snapshots } from '@icebox/snapshot'
import { openSqliteStore } from '@icebox/store'
import { makeDisk } from './disk.ts'

const DIGEST = `sha256:${'5'.repeat(64)}`
const MANIFEST: ManifestInput = {
  kind: 'memory',
  driver: { name: 'gvisor', version: '1', digest: DIGEST, flags: [], cpuFeatures: [] },
  size: { cpu: 1, memoryMiB: 512, diskMiB: 1024 },
  imageDigest: DIGEST,
  agent: { version: '1', digest: DIGEST },
  labels: {},
  env: {},
  files: ['pages.img'],
}
const PAGES = 'p'.repeat(3_000_000)
const TEMPLATE = {
  spec: { image: 'x', size: { cpu: 1, memoryMiB: 512, diskMiB: 1024 }, env: {}, hidden: false },
  status: { state: 'creating', lastTransitionAt: '2026-01-02T03:04:05.678Z' },
} as const

test('the disk of these tests does lose what was not synced', async (t) => {
  const disk = await makeDisk(t)
  await writeFile(join(disk.path, 'file'), PAGES)
  const after = await disk.afterPowerLoss()
  assert.notEqual(await readFile(join(after, 'file'), 'utf8').catch(() => ''), PAGES)
})

test('a loss of power takes no acknowledged write from the store', async (t) => {
  const disk = await makeDisk(t)
  const store = await openSqliteStore(join(disk.path, 'icebox.db'))
  for (let round = 0; round < 3; round++) {
    const write = (i: number) =>
      store.create('Template', { namespace: 'default', name: `t${round}-${i}` }, TEMPLATE, t.signal)
    const one = await write(0)
    await Promise.all([
      ...[1, 2, 3, 4, 5].map(write),
      store.updateStatus('Template', one, { ...TEMPLATE.status, state: 'ready' }, t.signal),
    ])
    const later = await openSqliteStore(join(await disk.afterPowerLoss(), 'icebox.db'))
    try {
      const { items } = await later.list('Template', 'default', {}, t.signal)
      assert.deepEqual(items, (await store.list('Template', 'default', {}, t.signal)).items)
      assert.equal(items.length, 6 * (round + 1))
      assert.equal(items.find((item) => item.metadata.name === `t${round}-0`)?.status.state, 'ready')
    } finally {
      await later.close()
    }
  }
  await store.close()
})

test('a loss of power takes no committed snapshot and brings no removed one back', async (t) => {
  const disk = await makeDisk(t)
  for (const name of ['snapshots', 'tmp']) await mkdir(join(disk.path, name))
  // After a loss of power its key is there too, or nothing of it could be restored.
  const openIn = async (root: string) =>
    openSnapshots({ directory: join(root, 'snapshots'), tmp: join(root, 'tmp'), keyring: await openKeyring(root) })
  const snapshots = await openIn(disk.path)
  const save = async (): Promise<SnapshotId> => {
    const draft = await snapshots.begin(newSnapshotId(), PAGES.length, t.signal)
    await writeFile(join(draft.directory, 'pages.img'), PAGES)
    return (await draft.commit(MANIFEST, t.signal)).id
  }
  const survivors = async (check: (later: Snapshots) => Promise<void>) => {
    const root = await disk.afterPowerLoss()
    const later = await openIn(root)
    try {
      await later.recover(t.signal)
      // Those that are there may still be without digests.
      for (const id of await later.list(t.signal)) await later.digest(id, t.signal)
      assert.deepEqual(await readdir(join(root, 'tmp')), [])
      await check(later)
    } finally {
      await later.close(t.signal)
    }
  }
  try {
    const unfinished = await snapshots.begin(newSnapshotId(), 0, t.signal)
    await writeFile(join(unfinished.directory, 'pages.img'), PAGES)
    const one = await save()
    const two = await save()
    await survivors(async (later) => {
      for (const id of [one, two]) {
        const { directory } = await later.open(id, t.signal)
        assert.equal(await readFile(join(directory, 'pages.img'), 'utf8'), PAGES)
        assert.deepEqual(await later.verify(id, t.signal), [])
      }
      assert.equal((await later.list(t.signal)).length, 2)
    })
    await snapshots.remove(one, t.signal)
    await survivors(async (later) => {
      assert.deepEqual(await later.list(t.signal), [two])
      assert.notEqual(await later.find(two, t.signal), 'damaged')
    })
  } finally {
    await snapshots.close(t.signal)
  }
})

test('a loss of power leaves the API key as it was given out', async (t) => {
  const disk = await makeDisk(t)
  const runs: string[] = []
  const keyOf = async (root: string): Promise<string> => {
    const data = await openDataDirectory(join(root, 'data'))
    runs.push(data.run)
    try {
      return await data.readOrCreateKey()
    } finally {
      await data.close()
    }
  }
  try {
    const key = await keyOf(disk.path)
    assert.equal(await keyOf(await disk.afterPowerLoss()), key)
  } finally {
    for (const run of runs) await rm(run, { recursive: true, force: true })
  }
})
