import assert from 'node:assert/strict'
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { type ErrorCode, isError } from '@icebox/model'
import { distrustKey, openKeyring, PublicKey, readKeys, trustKey } from './keyring.ts'

const code = (expected: ErrorCode) => (thrown: unknown) => {
  assert.ok(isError(thrown, expected), `expected ${expected}, got ${String(thrown)}`)
  return true
}

async function place(t: TestContext): Promise<string> {
  const root = await mkdtemp(join(tmpdir(), 'icebox-keyring-'))
  t.after(() => rm(root, { recursive: true, force: true }))
  await mkdir(join(root, 'tmp'))
  return root
}

const CHECKSUM = `sha256:${'a'.repeat(64)}`

test('a key is made once, for its owner alone, and signs the same from one server to the next', async (t) => {
  const here = await place(t)
  const first = await openKeyring(here)
  const second = await openKeyring(here)
  assert.equal(second.publicKey, first.publicKey)
  assert.deepEqual(second.sign(CHECKSUM), first.sign(CHECKSUM))
  second.check(CHECKSUM, first.sign(CHECKSUM), 'it')
  assert.equal((await stat(join(here, 'signing-key'))).mode & 0o777, 0o600)
  assert.deepEqual(await readdir(join(here, 'tmp')), [])
  assert.notEqual((await openKeyring(await place(t))).publicKey, first.publicKey)
})

test('a signature holds for its key and checksum only, and counts when its key is trusted', async (t) => {
  const here = await place(t)
  const [ours, theirs] = [await openKeyring(here), await openKeyring(await place(t))]
  const signature = theirs.sign(CHECKSUM)
  const checked = (checksum = CHECKSUM, given: typeof signature | undefined = signature) =>
    ours.check(checksum, given, 'it')

  assert.throws(() => ours.check(CHECKSUM, undefined, 'it'), code('SnapshotUntrusted'))
  assert.throws(checked, (thrown) => {
    assert.ok(isError(thrown, 'SnapshotUntrusted'))
    assert.match(thrown.message, new RegExp(theirs.publicKey))
    return true
  })
  await trustKey(here, { key: theirs.publicKey, name: 'the other\nhouse ' })
  checked()
  assert.throws(() => checked(`sha256:${'b'.repeat(64)}`), code('SnapshotCorrupt'))
  // The signature of one under the name of another.
  assert.throws(() => checked(CHECKSUM, { ...signature, key: ours.publicKey }), code('SnapshotCorrupt'))
  // Not a point of the curve.
  const nonsense = PublicKey.parse(`ed25519:${'f'.repeat(64)}`)
  assert.throws(() => checked(CHECKSUM, { ...signature, key: nonsense }), code('SnapshotCorrupt'))

  assert.deepEqual((await readKeys(here)).trusted, [{ key: theirs.publicKey, name: 'the other house' }])
  await trustKey(here, { key: theirs.publicKey, name: 'renamed' })
  await trustKey(here, { key: ours.publicKey, name: 'ourselves' })
  assert.deepEqual((await readKeys(here)).trusted, [{ key: theirs.publicKey, name: 'renamed' }])
  await distrustKey(here, theirs.publicKey)
  assert.throws(checked, code('SnapshotUntrusted'))
  await assert.rejects(distrustKey(here, theirs.publicKey), code('NotFound'))
})

test('files that hold something else are refused and left as they are', async (t) => {
  const here = await place(t)
  await assert.rejects(readKeys(here), code('NotFound'))
  await assert.rejects(
    trustKey(join(here, 'nowhere'), { key: PublicKey.parse(`ed25519:${'0'.repeat(64)}`), name: '' }),
    code('NotFound'),
  )
  await writeFile(join(here, 'signing-key'), 'not a key')
  await assert.rejects(openKeyring(here), code('InvalidArgument'))
  assert.equal(await readFile(join(here, 'signing-key'), 'utf8'), 'not a key')
  await rm(join(here, 'signing-key'))
  await openKeyring(here)
  await writeFile(join(here, 'trusted-keys'), '# ours\n\nwhoever\n')
  await assert.rejects(readKeys(here), (thrown) => isError(thrown, 'InvalidArgument') && /line 3/.test(thrown.message))
})
