import assert from 'node:assert/strict'
import { createPrivateKey } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { asSnapshotId, type ErrorCode, isError } from '@icebox/model'
import fc from 'fast-check'
import { decodeBlobs, encodeBlobs } from './blob-facts.ts'
import { openKeyring } from './keyring.ts'
import { decodeManifest, encodeManifest, type ManifestContent } from './manifest.ts'
import { seal } from './sealed.ts'

/** Of a key that everybody knows: the golden files are signed by it. */
const place = await mkdtemp(join(tmpdir(), 'icebox-manifest-'))
after(() => rm(place, { recursive: true, force: true }))
const PKCS8_ED25519 = Buffer.from('302e020100300506032b657004220420', 'hex')
const pkcs8 = Buffer.concat([PKCS8_ED25519, Buffer.alloc(32, 'icebox')])
const testKey = createPrivateKey({ key: pkcs8, format: 'der', type: 'pkcs8' })
await writeFile(join(place, 'signing-key'), testKey.export({ type: 'pkcs8', format: 'pem' }))
const keyring = await openKeyring(place)

const golden = (name: string) => readFile(new URL(`./golden/${name}`, import.meta.url), 'utf8')
const code = (expected: ErrorCode, message: RegExp) => (thrown: unknown) => {
  assert.ok(isError(thrown, expected), `expected ${expected}, got ${String(thrown)}`)
  assert.match(thrown.message, message)
  return true
}

const sha = (digit: string) => `sha256:${digit.repeat(64)}`
const GOLDEN: ManifestContent = {
  version: 1,
  id: asSnapshotId('k3v9x2m7q1w8e5r4t6y0'),
  kind: 'memory',
  driver: {
    name: 'gvisor',
    version: '0.0.0-20260905035102-160fafc42237',
    digest: sha('a'),
    flags: ['--direct', '--allow-suid'],
    cpuFeatures: ['avx2', 'sse4_2'],
  },
  size: { cpu: 0.5, memoryMiB: 512, diskMiB: 2048 },
  imageDigest: sha('b'),
  agent: { version: '0.1.0', digest: sha('c') },
  blobs: [
    { name: 'checkpoint.img', bytes: 123_456 },
    { name: 'pages.img', bytes: 268_435_456 },
    { name: 'pages_meta.img', bytes: 789 },
  ],
  needs: [{ snapshot: asSnapshotId('p2o4i6u8y1t3r5e7w9q0'), blob: 'layer-0' }],
  parent: { id: asSnapshotId('p2o4i6u8y1t3r5e7w9q0'), manifest: sha('d') },
  importedFrom: { id: asSnapshotId('z9x8c7v6b5n4m3l2k1j0'), manifest: sha('e') },
  template: 'python',
  labels: { purpose: 'pause', note: 'grün 🧊' },
  env: { LANG: 'C.UTF-8', EMPTY: '' },
  createdAt: '2026-01-02T03:04:05.678Z',
  expiresAt: '2027-01-02T03:04:05.678Z',
}

test('the manifest of version 1 stays readable, and is still written the same', async () => {
  const text = await golden('manifest.v1')
  const { checksum, ...content } = decodeManifest(text, keyring)
  assert.deepEqual(content, GOLDEN)
  assert.match(text, new RegExp(checksum))
  assert.equal(encodeManifest(GOLDEN, keyring), text)
})

test('the blobs.json of version 1 stays readable, and is still written the same', async () => {
  const text = await golden('blobs.v1')
  const file = decodeBlobs(text, 'blobs.json', keyring)
  assert.equal(encodeBlobs(file, keyring), text)
  assert.deepEqual(Object.keys(file.blobs), ['checkpoint.img', 'pages.img'])
  assert.equal(file.blobs['checkpoint.img']?.digest, sha('f'))
  assert.equal(file.blobs['pages.img']?.digest, undefined)
})

const id = fc
  .tuple(
    fc.constantFrom(...'abcxyz'),
    fc.string({ unit: fc.constantFrom(...'abcxyz0189'), minLength: 19, maxLength: 19 }),
  )
  .map(([first, rest]) => asSnapshotId(first + rest))
const digest = fc
  .string({ unit: fc.constantFrom(...'0123456789abcdef'), minLength: 64, maxLength: 64 })
  .map((hex) => `sha256:${hex}`)
const text = fc.string({ unit: 'binary', maxLength: 20 })
const blobName = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,20}$/)
const time = fc
  .date({ noInvalidDate: true, min: new Date(0), max: new Date('9999-01-01') })
  .map((date) => date.toISOString())
// zod leaves out a key named __proto__, for everybody's safety.
const dictionary = fc.dictionary(
  text.filter((key) => key !== '__proto__'),
  text,
)
const manifest: fc.Arbitrary<ManifestContent> = fc.record(
  {
    version: fc.constant(1 as const),
    id,
    kind: fc.constantFrom('memory', 'filesystem'),
    driver: fc.record({ name: text, version: text, digest: text, flags: fc.array(text), cpuFeatures: fc.array(text) }),
    size: fc.record({
      cpu: fc.double({ min: 0.1, max: 64, noNaN: true }),
      memoryMiB: fc.integer({ min: 64, max: 262_144 }),
      diskMiB: fc.integer({ min: 64, max: 1_048_576 }),
    }),
    imageDigest: digest,
    agent: fc.record({ version: text, digest: text }),
    blobs: fc.uniqueArray(fc.record({ name: blobName, bytes: fc.maxSafeNat() }), { selector: (blob) => blob.name }),
    needs: fc.array(fc.record({ snapshot: id, blob: blobName })),
    parent: fc.record({ id, manifest: digest }, { requiredKeys: ['id'] }),
    importedFrom: fc.record({ id, manifest: digest }),
    template: text,
    labels: dictionary,
    env: dictionary,
    createdAt: time,
    expiresAt: time,
  },
  {
    requiredKeys: [
      'version',
      'id',
      'kind',
      'driver',
      'size',
      'imageDigest',
      'agent',
      'blobs',
      'needs',
      'labels',
      'env',
      'createdAt',
    ],
  },
)
/** Dictionaries of fast-check have no prototype, which deepEqual would tell apart. */
const plain = <T>(value: T): T => JSON.parse(JSON.stringify(value))

test('any manifest reads back as it was written', () => {
  fc.assert(
    fc.property(manifest, (content) => {
      const written = encodeManifest(content, keyring)
      const { checksum, ...read } = decodeManifest(written, keyring)
      assert.deepEqual(plain(read), plain(content))
      assert.equal(encodeManifest(read, keyring), written)
      assert.match(checksum, /^sha256:/)
    }),
  )
})

test('every change of one byte, and every cut, is found', () => {
  const written = Buffer.from(encodeManifest(GOLDEN, keyring))
  const refused = (bytes: Buffer) =>
    assert.throws(() => decodeManifest(bytes.toString(), keyring), code('SnapshotCorrupt', /damaged/))
  for (let at = 0; at < written.length; at++) {
    const bytes = Buffer.from(written)
    bytes.writeUInt8(bytes.readUInt8(at) ^ (1 << (at % 8)), at)
    refused(bytes)
    refused(written.subarray(0, at))
  }
  refused(Buffer.concat([written, Buffer.from(' ')]))
})

test('what cannot be a manifest is refused, and a newer version is said to be one', () => {
  const { version: _, ...rest } = GOLDEN
  const refused = (content: object, expected: ErrorCode, message: RegExp) =>
    assert.throws(() => decodeManifest(seal(content, keyring), keyring), code(expected, message))
  refused({ ...rest, version: 2, more: {} }, 'SnapshotIncompatible', /format version 2.*reads version 1.*newer/)
  refused(rest, 'SnapshotCorrupt', /version/)
  refused({ ...GOLDEN, extra: 1 }, 'SnapshotCorrupt', /schema/)
  refused({ ...GOLDEN, id: '../../etc' }, 'SnapshotCorrupt', /schema/)
  refused({ ...GOLDEN, kind: 'other' }, 'SnapshotCorrupt', /schema/)
  for (const name of ['..', '.', '', 'a/b', '/etc/passwd', '.hidden', 'a\0b', 'x'.repeat(129)])
    refused({ ...GOLDEN, blobs: [{ name, bytes: 1 }] }, 'SnapshotCorrupt', /schema/)
  for (const bytes of [-1, 1.5, 2 ** 60])
    refused({ ...GOLDEN, blobs: [{ name: 'a', bytes }] }, 'SnapshotCorrupt', /schema/)
  const twice = { name: 'a', bytes: 1 }
  refused({ ...GOLDEN, blobs: [twice, twice] }, 'SnapshotCorrupt', /schema/)
  for (const text of ['', 'null', '[]', '"x"', '{}', '{"version":1}'])
    assert.throws(() => decodeManifest(text, keyring), code('SnapshotCorrupt', /damaged/))
})
