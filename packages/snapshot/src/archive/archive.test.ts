import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { createWriteStream } from 'node:fs'
import { cp, mkdir, mkdtemp, open, readdir, readFile, rename, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { type TestContext, test } from 'node:test'
import { type ErrorCode, IceboxError, isError, newSnapshotId, type SnapshotId } from '@icebox/model'
import fc from 'fast-check'
import { type Header, pack } from 'tar-stream'
import { distrustKey, type Keyring, openKeyring, trustKey } from '../keyring.ts'
import { encodeManifest } from '../manifest.ts'
import { seal } from '../sealed.ts'
import { type ManifestInput, openSnapshots, type Snapshots } from '../snapshots.ts'

const DIGEST = `sha256:${'5'.repeat(64)}`
const INPUT: ManifestInput = {
  kind: 'memory',
  driver: { name: 'gvisor', version: '1', digest: DIGEST, flags: [], cpuFeatures: [] },
  size: { cpu: 1, memoryMiB: 512, diskMiB: 1024 },
  imageDigest: DIGEST,
  agent: { version: '0.1.0', digest: DIGEST },
  labels: {},
  env: {},
  files: ['checkpoint.img', 'pages.img'],
}
const CHECKPOINT = 'c'.repeat(5000)
const ignore = () => {}
const digestOf = (data: string | Buffer) => `sha256:${createHash('sha256').update(data).digest('hex')}`
const code =
  (expected: ErrorCode, message = /./) =>
  (thrown: unknown) => {
    assert.ok(isError(thrown, expected), `expected ${expected}, got ${String(thrown)}`)
    assert.match(thrown.message, message)
    return true
  }

interface Place {
  root: string
  file: string
  keyring: Keyring
  snapshots: Snapshots
  /** What is in the directories of the engine. */
  entries(): Promise<string[]>
}

async function place(t: TestContext): Promise<Place> {
  const root = await mkdtemp(join(tmpdir(), 'icebox-archive-'))
  const [directory, tmp] = [join(root, 'snapshots'), join(root, 'tmp')]
  await mkdir(directory)
  await mkdir(tmp)
  const keyring = await openKeyring(root)
  const snapshots = openSnapshots({ directory, tmp, keyring })
  t.after(async () => {
    await snapshots.close(AbortSignal.abort())
    await rm(root, { recursive: true, force: true })
  })
  const entries = async () => [...(await readdir(directory)), ...(await readdir(tmp))]
  return { root, file: join(root, 'export.tar'), keyring, snapshots, entries }
}

/** A snapshot with a sparse file: 200 KB of data in the middle of 4 MiB. */
async function save({ snapshots }: Place, signal: AbortSignal): Promise<SnapshotId> {
  const id = newSnapshotId()
  const draft = await snapshots.begin(id, 0, signal)
  await writeFile(join(draft.directory, 'checkpoint.img'), CHECKPOINT)
  const pages = await open(join(draft.directory, 'pages.img'), 'w')
  await pages.write('p'.repeat(200_000), 1_000_000)
  await pages.truncate(4_194_304)
  await pages.close()
  await draft.commit({ ...INPUT, template: 'python' }, signal)
  return id
}

test('an export brings the snapshot and the files beside it to another place, holes too', async (t) => {
  const [here, there] = [await place(t), await place(t)]
  const id = await save(here, t.signal)
  const image = join(here.root, 'image.erofs')
  await writeFile(image, 'root file system')
  const seen: (number | undefined)[] = []
  await here.snapshots.exportTo(
    id,
    here.file,
    [{ name: 'image.erofs', path: image }],
    (step) => seen.push(step.done),
    t.signal,
  )
  assert.equal(seen.at(-1), 5000 + 4_194_304 + 16)
  assert.equal((await stat(here.file)).mode & 0o777, 0o600)

  await trustKey(there.root, { key: here.keyring.publicKey, name: 'here' })
  const newId = newSnapshotId()
  const incoming = await there.snapshots.importFrom(here.file, newId, ignore, t.signal)
  assert.equal(incoming.manifest.id, id)
  assert.deepEqual(await there.snapshots.list(t.signal), [])
  assert.equal(await readFile(incoming.extras.get('image.erofs') ?? '', 'utf8'), 'root file system')
  const manifest = await incoming.commit(t.signal)
  const opened = await there.snapshots.open(newId, t.signal)
  assert.deepEqual(opened.manifest, manifest)
  const original = (await here.snapshots.open(id, t.signal)).manifest
  assert.deepEqual(manifest.importedFrom, { id, manifest: original.checksum })
  const { checksum: _a, importedFrom: _b, ...rest } = manifest
  assert.deepEqual({ ...rest, id, checksum: original.checksum }, original)
  for (const name of ['checkpoint.img', 'pages.img'])
    assert.deepEqual(
      await readFile(join(opened.directory, name)),
      await readFile(join((await here.snapshots.open(id, t.signal)).directory, name)),
    )
  assert.ok(opened.allocatedBytes < 1_000_000, String(opened.allocatedBytes))
  assert.deepEqual(await there.snapshots.verify(newId, t.signal), [])
  assert.deepEqual(await there.entries(), [newId])
})

test('what is not accepted leaves nothing', async (t) => {
  const here = await place(t)
  const id = await save(here, t.signal)
  await here.snapshots.exportTo(id, here.file, [], ignore, t.signal)
  const incoming = await here.snapshots.importFrom(here.file, newSnapshotId(), ignore, t.signal)
  assert.notDeepEqual(await here.entries(), [id])
  await incoming.discard()
  assert.deepEqual(await here.entries(), [id])
  await assert.rejects(here.snapshots.importFrom(here.file, id, ignore, t.signal), code('AlreadyExists'))
  const stop = new AbortController()
  const aborted = here.snapshots.importFrom(here.file, newSnapshotId(), () => stop.abort(), stop.signal)
  await assert.rejects(aborted, code('DeadlineExceeded'))
  assert.deepEqual(await here.entries(), [id])
})

test('an export is whole or absent, and replaces no file', async (t) => {
  const here = await place(t)
  const id = await save(here, t.signal)
  const stop = new AbortController()
  const aborted = here.snapshots.exportTo(id, here.file, [], () => stop.abort(), stop.signal)
  await assert.rejects(aborted, code('DeadlineExceeded'))
  const extras = [{ name: 'image', path: join(here.root, 'nothing') }]
  await assert.rejects(here.snapshots.exportTo(id, here.file, extras, ignore, t.signal), code('Internal', /nothing/))
  const nowhere = join(here.root, 'no', 'directory')
  await assert.rejects(here.snapshots.exportTo(id, nowhere, [], ignore, t.signal), code('InvalidArgument', /directory/))
  await assert.rejects(here.snapshots.exportTo(newSnapshotId(), here.file, [], ignore, t.signal), code('NotFound'))
  assert.deepEqual((await readdir(here.root)).sort(), ['signing-key', 'snapshots', 'tmp'])
  await writeFile(here.file, 'mine')
  await assert.rejects(here.snapshots.exportTo(id, here.file, [], ignore, t.signal), code('AlreadyExists'))
  assert.equal(await readFile(here.file, 'utf8'), 'mine')
  await rm(here.file)
  const pages = join((await here.snapshots.open(id, t.signal)).directory, 'pages.img')
  await here.snapshots.digest(id, t.signal)
  await rename(pages, `${pages}.old`)
  await writeFile(pages, Buffer.alloc(4_194_304, 'q'))
  await assert.rejects(here.snapshots.exportTo(id, here.file, [], ignore, t.signal), code('SnapshotCorrupt'))
  assert.deepEqual((await readdir(here.root)).sort(), ['signing-key', 'snapshots', 'tmp'])
})

test('a flipped bit or a cut anywhere is found, or does not matter', async (t) => {
  const here = await place(t)
  const id = await save(here, t.signal)
  await here.snapshots.exportTo(id, here.file, [], ignore, t.signal)
  const whole = await readFile(here.file)
  const bad = join(here.root, 'bad.tar')
  /** The blobs that came through, or the error. */
  const attempt = async (bytes: Buffer): Promise<string | IceboxError> => {
    await writeFile(bad, bytes)
    const newId = newSnapshotId()
    try {
      await (await here.snapshots.importFrom(bad, newId, ignore, t.signal)).commit(t.signal)
    } catch (thrown) {
      assert.ok(isError(thrown, 'SnapshotCorrupt', 'SnapshotIncompatible', 'InvalidArgument'), String(thrown))
      assert.deepEqual(await here.entries(), [id])
      return thrown
    }
    const digests = JSON.stringify([...(await here.snapshots.digest(newId, t.signal))])
    await here.snapshots.remove(newId, t.signal)
    return digests
  }
  const good = JSON.stringify([...(await here.snapshots.digest(id, t.signal))])
  assert.equal(await attempt(whole), good)
  // Headers and the first entry are where a flip is not just a wrong digest.
  const position = fc.oneof(fc.integer({ min: 0, max: 4096 }), fc.integer({ min: 0, max: whole.length - 1 }))
  await fc.assert(
    fc.asyncProperty(position, fc.integer({ min: 0, max: 7 }), async (at, bit) => {
      const bytes = Buffer.from(whole)
      bytes.writeUInt8(bytes.readUInt8(at) ^ (1 << bit), at)
      const result = await attempt(bytes)
      if (!(result instanceof IceboxError)) assert.equal(result, good)
    }),
    { numRuns: 60 },
  )
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 0, max: whole.length - 1025 }), async (length) => {
      assert.ok((await attempt(whole.subarray(0, length))) instanceof IceboxError)
    }),
    { numRuns: 25 },
  )
})

type Entry = Partial<Header> & { name: string; content?: string }

async function tar(file: string, entries: Entry[]): Promise<void> {
  const archive = pack()
  const written = pipeline(archive, createWriteStream(file))
  for (const { content, ...header } of entries) {
    if (content === undefined) archive.entry(header).end(null)
    else archive.entry(header, content)
  }
  archive.finalize()
  await written
}

test('an export of another installation is taken when its key is trusted, and from then on stands by itself', async (t) => {
  const [here, there] = [await place(t), await place(t)]
  await here.snapshots.exportTo(await save(here, t.signal), here.file, [], ignore, t.signal)
  const attempt = () => there.snapshots.importFrom(here.file, newSnapshotId(), ignore, t.signal)
  await assert.rejects(attempt(), code('SnapshotUntrusted', new RegExp(here.keyring.publicKey)))
  assert.deepEqual(await there.entries(), [])

  await trustKey(there.root, { key: here.keyring.publicKey, name: '' })
  const { id } = await (await attempt()).commit(t.signal)
  await distrustKey(there.root, here.keyring.publicKey)
  await there.snapshots.open(id, t.signal)
  assert.deepEqual(await there.snapshots.verify(id, t.signal), [])
  await assert.rejects(attempt(), code('SnapshotUntrusted'))
  assert.deepEqual(await there.entries(), [id])
})

test('a snapshot that was put into the directory is refused unless its signer is trusted', async (t) => {
  const [here, there] = [await place(t), await place(t)]
  const id = await save(here, t.signal)
  await here.snapshots.digest(id, t.signal)
  await cp(join(here.root, 'snapshots', id), join(there.root, 'snapshots', id), { recursive: true })
  await assert.rejects(there.snapshots.open(id, t.signal), code('SnapshotUntrusted', /signed by/))
  assert.equal(await there.snapshots.find(id, t.signal), 'damaged')
  await trustKey(there.root, { key: here.keyring.publicKey, name: '' })
  await there.snapshots.open(id, t.signal)
})

test('a hostile file is refused, and nothing of it stays', async (t) => {
  const here = await place(t)
  interface Announced {
    name: string
    bytes: number
    digest: string
  }
  const one: Announced = { name: 'a', bytes: 3, digest: digestOf('abc') }
  const announce = (
    changes: { blobs?: Announced[]; extras?: Announced[]; more?: Partial<Parameters<typeof encodeManifest>[0]> } = {},
  ): Entry => {
    const { blobs = [one], extras = [], more = {} } = changes
    const { files: _, parent: _parent, ...input } = INPUT
    const manifest = encodeManifest(
      {
        ...input,
        version: 1,
        id: newSnapshotId(),
        blobs: [{ name: 'a', bytes: 3 }],
        needs: [],
        createdAt: '2026-01-02T03:04:05.678Z',
        ...more,
      },
      here.keyring,
    )
    return { name: 'icebox.json', content: seal({ version: 1, manifest, blobs, extras }, here.keyring) }
  }
  const index = announce()
  const a = { name: 'blobs/a', content: 'abc' }
  const cases: [string, Entry[], ErrorCode, RegExp][] = [
    ['nothing', [], 'InvalidArgument', /empty/],
    ['another tar', [{ name: 'etc/passwd', content: 'root' }], 'InvalidArgument', /does not begin/],
    ['a huge index', [{ name: 'icebox.json', content: ' '.repeat(1_048_577) }], 'InvalidArgument', /does not begin/],
    ['a directory as index', [{ name: 'icebox.json', type: 'directory' }], 'InvalidArgument', /does not begin/],
    ['rubbish as index', [{ name: 'icebox.json', content: '{}' }], 'SnapshotCorrupt', /damaged/],
    ['traversal', [index, { name: '../../evil', content: 'x' }], 'InvalidArgument', /"..\/..\/evil".*not announce/],
    ['traversal below blobs', [index, { name: 'blobs/../../evil', content: 'x' }], 'InvalidArgument', /not announce/],
    ['an absolute path', [index, { name: '/etc/evil', content: 'x' }], 'InvalidArgument', /not announce/],
    ['another spelling', [index, { name: './blobs/a', content: 'abc' }], 'InvalidArgument', /not announce/],
    ['a symlink', [index, { name: 'blobs/a', type: 'symlink', linkname: '/etc/passwd' }], 'InvalidArgument', /symlink/],
    ['a hard link', [index, { name: 'blobs/a', type: 'link', linkname: '/etc/passwd' }], 'InvalidArgument', /link/],
    ['a device', [index, { name: 'blobs/a', type: 'character-device' }], 'InvalidArgument', /device/],
    ['a directory', [index, { name: 'blobs/a', type: 'directory' }], 'InvalidArgument', /directory/],
    ['a file twice', [index, a, a], 'InvalidArgument', /not announce/],
    ['one more file', [index, a, { name: 'blobs/b', content: 'abc' }], 'InvalidArgument', /not announce/],
    ['one file less', [index], 'SnapshotCorrupt', /lacks blobs\/a/],
    ['another length', [index, { name: 'blobs/a', content: 'abcd' }], 'InvalidArgument', /4 bytes/],
    ['other content', [index, { name: 'blobs/a', content: 'abd' }], 'SnapshotCorrupt', /digest differs/],
    ['an announced path', [announce({ blobs: [{ ...one, name: '../a' }] })], 'SnapshotCorrupt', /schema/],
    ['other blobs than the manifest', [announce({ blobs: [] })], 'SnapshotCorrupt', /manifest/],
    [
      'more than is there',
      [announce({ extras: [{ name: 'x', bytes: 2 ** 50, digest: DIGEST }] })],
      'SnapshotCorrupt',
      /cut off/,
    ],
    [
      'needs',
      [announce({ more: { needs: [{ snapshot: newSnapshotId(), blob: 'a' }] } }), a],
      'NotImplemented',
      /needs/,
    ],
  ]
  for (const [what, entries, expected, message] of cases) {
    await tar(here.file, entries)
    const importing = here.snapshots.importFrom(here.file, newSnapshotId(), ignore, t.signal)
    await assert.rejects(importing, code(expected, message), what)
    // The path is the server's own, and there is nothing here yet that could be verified.
    await assert.rejects(importing, (thrown: IceboxError) => {
      assert.ok(!thrown.message.includes(here.root), thrown.message)
      if (expected === 'SnapshotCorrupt') assert.match(thrown.remedy, /^Export the snapshot again/)
      return true
    })
    assert.deepEqual(await here.entries(), [], what)
    assert.deepEqual((await readdir(here.root)).sort(), ['export.tar', 'signing-key', 'snapshots', 'tmp'], what)
  }
  await tar(here.file, [index, a])
  const accepted = await here.snapshots.importFrom(here.file, newSnapshotId(), ignore, t.signal)
  await accepted.discard()

  for (const content of ['', 'x', 'x'.repeat(5000)]) {
    await writeFile(here.file, content)
    const importing = here.snapshots.importFrom(here.file, newSnapshotId(), ignore, t.signal)
    await assert.rejects(importing, code('InvalidArgument', /not an export/))
  }
  await truncate(here.file, 1_000_000)
  for (const file of [here.file, here.root, join(here.root, 'nothing')]) {
    const importing = here.snapshots.importFrom(file, newSnapshotId(), ignore, t.signal)
    await assert.rejects(importing, code('InvalidArgument'), file)
  }
  assert.deepEqual(await here.entries(), [])
})
