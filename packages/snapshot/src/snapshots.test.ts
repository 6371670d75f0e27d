import assert from 'node:assert/strict'
import {
  cp,
  link,
  lstat,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  truncate,
  utimes,
  writeFile,
} from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { type ErrorCode, isError, newSnapshotId, type SnapshotId } from '@icebox/model'
import { type Keyring, openKeyring } from './keyring.ts'
import { type ManifestInput, openSnapshots, type Snapshots } from './snapshots.ts'
import { freeBytes } from './space.ts'
import { tree } from './tree.ts'

const DIGEST = `sha256:${'5'.repeat(64)}`
const INPUT: Omit<ManifestInput, 'files'> = {
  kind: 'memory',
  driver: { name: 'gvisor', version: '1', digest: DIGEST, flags: ['--direct'], cpuFeatures: ['sse4_2'] },
  size: { cpu: 1, memoryMiB: 512, diskMiB: 1024 },
  imageDigest: DIGEST,
  agent: { version: '0.1.0', digest: DIGEST },
  labels: { app: 'x' },
  env: { LANG: 'C.UTF-8' },
}
const CONTENT = { 'checkpoint.img': 'c'.repeat(5000), 'pages.img': 'p'.repeat(300_000) }

const code =
  (expected: ErrorCode, message = /./) =>
  (thrown: unknown) => {
    assert.ok(isError(thrown, expected), `expected ${expected}, got ${String(thrown)}`)
    assert.match(thrown.message, message)
    return true
  }

interface Place {
  root: string
  directory: string
  tmp: string
  keyring: Keyring
  opened: Snapshots[]
}

async function place(t: TestContext): Promise<Place> {
  const root = await mkdtemp(join(tmpdir(), 'icebox-snapshots-'))
  const opened: Snapshots[] = []
  t.after(async () => {
    for (const snapshots of opened) await snapshots.close(AbortSignal.abort())
    await rm(root, { recursive: true, force: true })
  })
  const directory = join(root, 'snapshots')
  const tmp = join(root, 'tmp')
  await mkdir(directory)
  await mkdir(tmp)
  return { root, directory, tmp, keyring: await openKeyring(root), opened }
}

function engine({ opened, ...config }: Place): Snapshots {
  const snapshots = openSnapshots(config)
  opened.push(snapshots)
  return snapshots
}

async function save(
  snapshots: Snapshots,
  signal: AbortSignal,
  { content = CONTENT, ...more }: Partial<ManifestInput> & { content?: Record<string, string> } = {},
): Promise<SnapshotId> {
  const id = newSnapshotId()
  const draft = await snapshots.begin(id, 1_000_000, signal)
  for (const [name, text] of Object.entries(content)) await writeFile(join(draft.directory, name), text)
  await draft.commit({ ...INPUT, files: Object.keys(content), ...more }, signal)
  return id
}

/** Changes one bit, as ordinary programs would. */
async function flip(path: string, at = 100): Promise<void> {
  const handle = await open(path, 'r+')
  try {
    const byte = Buffer.alloc(1)
    await handle.read(byte, 0, 1, at)
    byte.writeUInt8(byte.readUInt8() ^ 1)
    await handle.write(byte, 0, 1, at)
  } finally {
    await handle.close()
  }
}

test('a saved snapshot opens with what was saved, also for the next server', async (t) => {
  const at = await place(t)
  const first = engine(at)
  const id = await save(first, t.signal, { template: 'python', expiresAt: '2030-01-01T00:00:00.000Z' })
  for (const snapshots of [first, engine(at)]) {
    const opened = await snapshots.open(id, t.signal)
    assert.equal(opened.manifest.id, id)
    assert.equal(opened.manifest.kind, 'memory')
    assert.deepEqual(opened.manifest.driver, INPUT.driver)
    assert.equal(opened.manifest.template, 'python')
    assert.deepEqual(opened.manifest.needs, [])
    assert.deepEqual(opened.manifest.blobs, [
      { name: 'checkpoint.img', bytes: 5000 },
      { name: 'pages.img', bytes: 300_000 },
    ])
    assert.equal(opened.bytes, 305_000)
    assert.deepEqual((await readdir(opened.directory)).sort(), ['checkpoint.img', 'pages.img'])
    for (const [name, text] of Object.entries(CONTENT))
      assert.equal(await readFile(join(opened.directory, name), 'utf8'), text)
    assert.deepEqual(await snapshots.verify(id, t.signal), [])
  }
  assert.deepEqual(await readdir(at.tmp), [])
})

test('files that a restore does not need are not kept; a missing one is refused', async (t) => {
  const at = await place(t)
  const snapshots = engine(at)
  const id = await save(snapshots, t.signal, { content: { a: 'a', log: 'noise' }, files: ['a'] })
  assert.deepEqual(await readdir((await snapshots.open(id, t.signal)).directory), ['a'])
  await assert.rejects(save(snapshots, t.signal, { files: ['nothing'] }), code('Internal', /nothing/))
  await assert.rejects(save(snapshots, t.signal, { content: { '.hidden': 'x' } }), code('Internal'))
  assert.deepEqual(await readdir(at.directory), [id])
  await snapshots.digest(id, t.signal)
  assert.deepEqual(await readdir(at.tmp), [])
})

test('says NotFound for what is not there', async (t) => {
  const snapshots = engine(await place(t))
  const id = newSnapshotId()
  await assert.rejects(snapshots.open(id, t.signal), code('NotFound'))
  await assert.rejects(snapshots.verify(id, t.signal), code('NotFound'))
  await assert.rejects(snapshots.digest(id, t.signal), code('NotFound'))
  await snapshots.remove(id, t.signal)
})

test('an id is taken once', async (t) => {
  const at = await place(t)
  const snapshots = engine(at)
  const id = newSnapshotId()
  const drafts = [await snapshots.begin(id, 0, t.signal), await snapshots.begin(id, 0, t.signal)]
  const results = await Promise.allSettled(drafts.map((draft) => draft.commit({ ...INPUT, files: [] }, t.signal)))
  assert.deepEqual(results.map((result) => result.status).sort(), ['fulfilled', 'rejected'])
  for (const result of results) if (result.status === 'rejected') code('AlreadyExists')(result.reason)
  await assert.rejects(snapshots.begin(id, 0, t.signal), code('AlreadyExists'))
  assert.deepEqual(await snapshots.verify(id, t.signal), [])
  assert.deepEqual(await readdir(at.tmp), [])
})

test('a discarded or aborted draft leaves nothing', async (t) => {
  const at = await place(t)
  const snapshots = engine(at)
  const draft = await snapshots.begin(newSnapshotId(), 0, t.signal)
  await writeFile(join(draft.directory, 'a'), 'a')
  await draft.discard()
  await draft.discard()
  const aborted = await snapshots.begin(newSnapshotId(), 0, t.signal)
  await assert.rejects(aborted.commit({ ...INPUT, files: [] }, AbortSignal.abort()), code('DeadlineExceeded'))
  assert.deepEqual(await readdir(at.tmp), [])
  assert.deepEqual(await readdir(at.directory), [])
})

test('a flipped bit in any file is found, by verify and before a restore', async (t) => {
  const at = await place(t)
  const snapshots = engine(at)
  for (const file of ['manifest.json', 'blobs.json', 'files/checkpoint.img', 'files/pages.img'])
    for (const where of [0, 100, -1]) {
      const id = await save(snapshots, t.signal)
      await snapshots.digest(id, t.signal)
      const path = join(at.directory, id, file)
      const { size } = await stat(path)
      await flip(path, where < 0 ? size - 1 : where)
      const [fault, ...more] = await snapshots.verify(id, t.signal)
      assert.equal(fault?.blob, file.replace('files/', ''))
      if (file !== 'blobs.json') assert.deepEqual(more, [])
      await assert.rejects(snapshots.open(id, t.signal), code('SnapshotCorrupt'))
    }
})

test('verify finds a bit that flipped without changing any time', async (t) => {
  const at = await place(t)
  const snapshots = engine(at)
  const id = await save(snapshots, t.signal)
  await snapshots.digest(id, t.signal)
  const path = join(at.directory, id, 'files', 'pages.img')
  await flip(path)
  // As a fault of the disk would look: what is known of the inode is made to fit what is there now.
  const record = join(at.directory, id, 'blobs.json')
  const { seal } = await import('./sealed.ts')
  const { checksum: _, signature: _signature, ...file } = JSON.parse(await readFile(record, 'utf8'))
  const { mtimeNs } = await lstat(path, { bigint: true })
  file.blobs['pages.img'].modifiedNs = String(mtimeNs)
  await writeFile(record, seal(file, at.keyring))
  await snapshots.open(id, t.signal)
  const faults = await snapshots.verify(id, t.signal)
  assert.deepEqual(
    faults.map((fault) => fault.blob),
    ['pages.img'],
  )
})

test('truncated, lengthened, missing and replaced files are refused before a restore', async (t) => {
  const at = await place(t)
  const snapshots = engine(at)
  const damages: [string, (files: string, id: string) => Promise<void>, RegExp][] = [
    ['truncated', (files) => truncate(join(files, 'pages.img'), 7), /has 7 bytes, and 300000/],
    ['longer', (files) => writeFile(join(files, 'pages.img'), 'x', { flag: 'a' }), /has 300001 bytes/],
    ['missing', (files) => rm(join(files, 'pages.img')), /missing/],
    [
      'directory',
      async (files) => {
        await rm(join(files, 'pages.img'))
        await mkdir(join(files, 'pages.img'))
      },
      /missing/,
    ],
    ['other content', (files) => writeFile(join(files, 'pages.img'), 'q'.repeat(300_000)), /digest differs/],
    ['no manifest', (files) => rm(join(files, '..', 'manifest.json')), /no manifest/],
    ['empty manifest', (files) => writeFile(join(files, '..', 'manifest.json'), ''), /not JSON/],
    ['half a manifest', (files) => truncate(join(files, '..', 'manifest.json'), 300), /not JSON/],
    ['no blobs.json', (files) => rm(join(files, '..', 'blobs.json')), /no blobs.json/],
  ]
  for (const [what, damage, message] of damages) {
    const id = await save(snapshots, t.signal)
    await snapshots.digest(id, t.signal)
    await damage(join(at.directory, id, 'files'), id)
    await assert.rejects(snapshots.open(id, t.signal), code('SnapshotCorrupt', message), what)
    assert.notDeepEqual(await snapshots.verify(id, t.signal), [], what)
  }
  const [one, two] = [await save(snapshots, t.signal), await save(snapshots, t.signal)]
  // Digests are written in the background, into the directory that is removed here.
  for (const id of [one, two]) await snapshots.digest(id, t.signal)
  await rm(join(at.directory, one), { recursive: true })
  await cp(join(at.directory, two), join(at.directory, one), { recursive: true })
  await assert.rejects(snapshots.open(one, t.signal), code('SnapshotCorrupt', /is that of snapshot/))
})

test('a copied data directory is read once and then trusted; a moved one need not be read', async (t) => {
  const at = await place(t)
  const snapshots = engine(at)
  const id = await save(snapshots, t.signal)
  await snapshots.close(t.signal)

  const moved = join(at.root, 'moved')
  await rename(at.directory, moved)
  await engine({ ...at, directory: moved }).open(id, t.signal)

  const copy = join(at.root, 'copy')
  await cp(moved, copy, { recursive: true })
  const there = engine({ ...at, directory: copy })
  const before = await readFile(join(copy, id, 'blobs.json'), 'utf8')
  await Promise.all(Array.from({ length: 5 }, () => there.open(id, t.signal)))
  const after = await readFile(join(copy, id, 'blobs.json'), 'utf8')
  assert.notEqual(after, before)
  await there.open(id, t.signal)
  assert.equal(await readFile(join(copy, id, 'blobs.json'), 'utf8'), after)
})

test('hard links to a blob, and from elsewhere, change neither it nor the trust in it', async (t) => {
  const at = await place(t)
  const snapshots = engine(at)
  const program = join(at.root, 'program')
  await writeFile(program, 'shared by all', { mode: 0o755 })
  const id = newSnapshotId()
  const draft = await snapshots.begin(id, 0, t.signal)
  await link(program, join(draft.directory, 'program'))
  await draft.commit({ ...INPUT, files: ['program'] }, t.signal)
  assert.equal((await stat(program)).mode & 0o777, 0o755)
  const { directory } = await snapshots.open(id, t.signal)
  await link(join(directory, 'program'), join(at.root, 'again'))
  await snapshots.open(id, t.signal)
  await rm(program)
  await snapshots.digest(id, t.signal)
  assert.deepEqual(await snapshots.verify(id, t.signal), [])
})

test('without a digest, a blob that was copied or changed is refused, since nothing vouches for it', async (t) => {
  const at = await place(t)
  const snapshots = engine(at)
  const id = await save(snapshots, t.signal)
  // As after a crash before the digests were computed.
  await snapshots.digest(id, t.signal)
  const record = join(at.directory, id, 'blobs.json')
  const { seal } = await import('./sealed.ts')
  const { checksum: _, signature: _signature, ...file } = JSON.parse(await readFile(record, 'utf8'))
  for (const blob of Object.values(file.blobs)) delete (blob as { digest?: string }).digest
  await writeFile(record, seal(file, at.keyring))
  await snapshots.open(id, t.signal)

  await utimes(join(at.directory, id, 'files', 'pages.img'), 1, 1)
  await assert.rejects(snapshots.open(id, t.signal), code('SnapshotCorrupt', /before its digest was known/))
  await assert.rejects(snapshots.digest(id, t.signal), code('SnapshotCorrupt', /before its digest was known/))
  assert.deepEqual(
    (await snapshots.verify(id, t.signal)).map((fault) => fault.blob),
    ['pages.img'],
  )
})

test('recover removes what a crash left half done and computes missing digests', async (t) => {
  const at = await place(t)
  const snapshots = engine(at)
  const draft = await snapshots.begin(newSnapshotId(), 0, t.signal)
  await writeFile(join(draft.directory, 'a'), 'a')
  const id = await save(snapshots, t.signal)
  await snapshots.close(AbortSignal.abort())
  const next = engine(at)
  await next.recover(t.signal)
  assert.equal((await next.digest(id, t.signal)).size, 2)
  assert.deepEqual(await readdir(at.tmp), [])
})

test('closing leaves digests that are not done in time to the next recover, however many there are', async (t) => {
  const at = await place(t)
  const snapshots = engine(at)
  const id = newSnapshotId()
  const draft = await snapshots.begin(id, 1_000_000, t.signal)
  // Hours of hashing each, and no bytes on the disk.
  const files = ['checkpoint.img', 'pages.img', 'pages_meta.img']
  for (const name of files) {
    await writeFile(join(draft.directory, name), '')
    await truncate(join(draft.directory, name), 2 ** 42)
  }
  await draft.commit({ ...INPUT, files }, t.signal)
  await snapshots.close(AbortSignal.abort())
  await assert.rejects(snapshots.digest(id, t.signal), /closed/)
  const next = engine(at)
  await next.open(id, t.signal)
  await next.recover(t.signal)
  await next.close(AbortSignal.abort())
})

test('lists what is there, and tells what is damaged', async (t) => {
  const at = await place(t)
  const snapshots = engine(at)
  const good = await save(snapshots, t.signal)
  const bad = await save(snapshots, t.signal)
  await flip(join(at.directory, bad, 'manifest.json'))
  await mkdir(join(at.directory, 'lost+found'))
  assert.deepEqual(await snapshots.list(t.signal), [good, bad].sort())
  const found = await snapshots.find(good, t.signal)
  assert.ok(found !== undefined && found !== 'damaged')
  assert.equal(found.bytes, 305_000)
  assert.equal(await snapshots.find(bad, t.signal), 'damaged')
  assert.equal(await snapshots.find(newSnapshotId(), t.signal), undefined)
})

test('holes are counted apart', async (t) => {
  const at = await place(t)
  const snapshots = engine(at)
  const id = newSnapshotId()
  const draft = await snapshots.begin(id, 0, t.signal)
  const handle = await open(join(draft.directory, 'pages.img'), 'w')
  await handle.write('x', 50_000_000)
  await handle.close()
  await draft.commit({ ...INPUT, files: ['pages.img'] }, t.signal)
  const opened = await snapshots.open(id, t.signal)
  assert.equal(opened.bytes, 50_000_001)
  assert.ok(opened.allocatedBytes > 0 && opened.allocatedBytes < 1_000_000, String(opened.allocatedBytes))
})

test('parents make a tree; a removed parent makes its children roots', async (t) => {
  const snapshots = engine(await place(t))
  const a = await save(snapshots, t.signal)
  const b = await save(snapshots, t.signal, { parent: a })
  const c = await save(snapshots, t.signal, { parent: b })
  const d = await save(snapshots, t.signal, { parent: a })
  type Shape = { [id: string]: Shape }
  const shape = async () => {
    const ids = await snapshots.list(t.signal)
    const opened = await Promise.all(ids.map((id) => snapshots.open(id, t.signal)))
    const walk = (nodes: ReturnType<typeof tree>): Shape =>
      Object.fromEntries(nodes.map((node) => [node.manifest.id, walk(node.children)]))
    return walk(tree(opened.map((each) => each.manifest)))
  }
  assert.deepEqual(await shape(), { [a]: { [b]: { [c]: {} }, [d]: {} } })
  await snapshots.remove(b, t.signal)
  assert.deepEqual(await shape(), { [a]: { [d]: {} }, [c]: {} })
  await snapshots.open(c, t.signal)
})

test('removing twice, at once and while it is read succeeds', async (t) => {
  const at = await place(t)
  const snapshots = engine(at)
  const id = await save(snapshots, t.signal)
  const { directory } = await snapshots.open(id, t.signal)
  const handle = await open(join(directory, 'pages.img'))
  await Promise.all([snapshots.remove(id, t.signal), snapshots.remove(id, t.signal)])
  await snapshots.remove(id, t.signal)
  assert.equal((await handle.readFile('utf8')).length, 300_000)
  await handle.close()
  await assert.rejects(snapshots.open(id, t.signal), code('NotFound'))
  assert.deepEqual(await readdir(at.tmp), [])
})

test('what does not fit is refused before it starts, with the numbers, counting what is under way', async (t) => {
  const where = await place(t)
  const snapshots = engine(where)
  const free = freeBytes(where.root)
  await assert.rejects(
    snapshots.begin(newSnapshotId(), free * 2, t.signal),
    code('NoSpace', /needs \d+ MiB in .*, where \d+ MiB are free/),
  )
  const draft = await snapshots.begin(newSnapshotId(), free * 0.75, t.signal)
  await assert.rejects(snapshots.begin(newSnapshotId(), free * 0.75, t.signal), code('NoSpace', /promised/))
  await draft.discard()
  await (await snapshots.begin(newSnapshotId(), free * 0.75, t.signal)).discard()
  const wide = code('NoSpace', /promised/)
  await snapshots.withSpace(free * 0.75, 'a restore', async () => {
    await assert.rejects(snapshots.begin(newSnapshotId(), free * 0.75, t.signal), wide)
    await assert.rejects(
      snapshots.withSpace(free * 0.75, 'a restore', () => assert.fail('it was begun')),
      wide,
    )
  })
  await assert.rejects(
    snapshots.withSpace(free * 0.75, 'a restore', () => Promise.reject(new Error('it failed'))),
    /it failed/,
  )
  await (await snapshots.begin(newSnapshotId(), free * 0.75, t.signal)).discard()
})
