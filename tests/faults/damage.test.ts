import assert from 'node:assert/strict'
import { chmod, readFile, rename, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { after, before, test } from 'node:test'
import { isIceboxError } from '@icebox/sdk'
import { buildBase, eventually, output, ServerProcess } from '../server-process.ts'
import { flipBit } from './flip-bit.ts'

let server: ServerProcess
before(async () => {
  server = await ServerProcess.start('damage')
  await buildBase(server.icebox, { memoryMiB: 128 })
})
after(() => server[Symbol.asyncDispose]())

const ids = async () => (await server.icebox.sandboxes.list()).map(({ id }) => id).sort()
const directoryOf = (snapshot: string) => join(server.dataDirectory, 'snapshots', snapshot)

/** The memory of a snapshot. */
const memoryFile = (snapshot: string) => join(directoryOf(snapshot), 'files', 'pages.img')

/** A snapshot whose digests are known, as they are a moment after it was taken. */
async function snapshotOf(id: string) {
  const sandbox = await server.icebox.sandboxes.connect(id)
  const snapshot = await sandbox.snapshot()
  assert.deepEqual(await server.icebox.snapshots.verify(snapshot.id), [])
  return snapshot
}

test('a flipped bit in memory is found by verify and refused before a restore; nothing is created', async () => {
  const sandbox = await server.icebox.sandboxes.create({ template: 'base' })
  const snapshot = await snapshotOf(sandbox.id)
  await flipBit(memoryFile(snapshot.id))
  const faults = await server.icebox.snapshots.verify(snapshot.id)
  assert.equal(faults.length, 1)
  await assert.rejects(server.icebox.sandboxes.create({ snapshot: snapshot.id }), (error) =>
    isIceboxError(error, 'SnapshotCorrupt'),
  )
  assert.deepEqual(await ids(), [sandbox.id])
  // The running sandbox survives a rollback to it that cannot be done.
  await assert.rejects(sandbox.rollback(snapshot.id), (error) => isIceboxError(error, 'SnapshotCorrupt'))
  assert.equal(await output(sandbox.exec(['echo', 'alive'])), 'alive')
  await sandbox.delete()
})

test('a damaged manifest is refused in words', async () => {
  const sandbox = await server.icebox.sandboxes.create({ template: 'base' })
  const snapshot = await snapshotOf(sandbox.id)
  const file = join(directoryOf(snapshot.id), 'manifest.json')
  const text = await readFile(file, 'utf8')
  await chmod(file, 0o600)
  await writeFile(file, text.replace('"memoryMiB": 128', '"memoryMiB": 129'))
  assert.notEqual(await readFile(file, 'utf8'), text)
  await assert.rejects(server.icebox.sandboxes.create({ snapshot: snapshot.id }), (error) =>
    isIceboxError(error, 'SnapshotCorrupt'),
  )
  await writeFile(file, text.slice(0, text.length / 2))
  await assert.rejects(server.icebox.sandboxes.create({ snapshot: snapshot.id }), (error) =>
    isIceboxError(error, 'SnapshotCorrupt'),
  )
  assert.deepEqual(await ids(), [sandbox.id])
  await sandbox.delete()
})

test('a paused sandbox whose rollback fails stays paused and resumes', async () => {
  const sandbox = await server.icebox.sandboxes.create({ template: 'base' })
  const snapshot = await snapshotOf(sandbox.id)
  await output(sandbox.exec(['sh', '-c', 'echo later > /dev/shm/mark']))
  await sandbox.pause()
  await flipBit(memoryFile(snapshot.id))
  await assert.rejects(sandbox.rollback(snapshot.id), (error) => isIceboxError(error, 'SnapshotCorrupt'))
  const { status } = await sandbox.info()
  assert.deepEqual([status.state, status.reason], ['Paused', 'RollbackFailed'])
  await sandbox.resume()
  assert.equal(await output(sandbox.exec(['cat', '/dev/shm/mark'])), 'later')
  await sandbox.delete()
})

test('what is missing or not trusted at one start is as before once it is back', async () => {
  const sandbox = await server.icebox.sandboxes.create({ template: 'base' })
  const snapshot = await snapshotOf(sandbox.id)
  const state = async () => (await server.icebox.snapshots.get(snapshot.id)).status
  const restore = async () => {
    const child = await server.icebox.sandboxes.create({ snapshot: snapshot.id })
    await child.delete()
  }
  const restarted = async (change: () => Promise<void>) => {
    await server.kill()
    await change()
    await server.restart()
  }
  const [image] = await server.icebox.images.list()
  const places = [directoryOf(snapshot.id), join(server.dataDirectory, 'images', image?.id ?? '')] as const
  await restarted(async () => {
    for (const place of places) await rename(place, `${server.dataDirectory}/${basename(place)}.away`)
  })
  assert.equal((await state()).reason, 'Missing')
  assert.equal((await server.icebox.images.list())[0]?.status.state, 'Failed')
  await restarted(async () => {
    for (const place of places) await rename(`${server.dataDirectory}/${basename(place)}.away`, place)
  })
  assert.equal((await state()).state, 'Ready')
  await restore()

  const key = join(server.dataDirectory, 'signing-key')
  await restarted(() => rename(key, `${key}.away`))
  assert.equal((await state()).state, 'Ready')
  await assert.rejects(restore(), (error) => isIceboxError(error, 'SnapshotUntrusted'))
  await restarted(() => rename(`${key}.away`, key))
  await restore()
  await (await server.icebox.sandboxes.connect(sandbox.id)).delete()
})

test('a paused sandbox whose snapshot is damaged stays paused, and says why', async () => {
  const sandbox = await server.icebox.sandboxes.create({ template: 'base' })
  const { pausedSnapshotId } = await sandbox.pause()
  assert.ok(pausedSnapshotId)
  assert.deepEqual(await server.icebox.snapshots.verify(pausedSnapshotId), [])
  const file = memoryFile(pausedSnapshotId)
  await flipBit(file)
  await assert.rejects(sandbox.resume(), (error) => isIceboxError(error, 'SnapshotCorrupt'))
  const { status } = await sandbox.info()
  assert.equal(status.state, 'Paused')
  // With its bytes back it goes on.
  await flipBit(file)
  await sandbox.resume()
  assert.equal(await output(sandbox.exec(['echo', 'alive'])), 'alive')
  await sandbox.delete()
  await eventually(async () => ((await ids()).length === 0 ? true : undefined), 'all are gone')
})
