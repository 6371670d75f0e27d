import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { isIceboxError, type Sandbox } from '@icebox/sdk'
import { buildBase, output, ServerProcess } from './server-process.ts'

let server: ServerProcess
before(async () => {
  server = await ServerProcess.start('lines')
  await buildBase(server.icebox, { memoryMiB: 256 })
})
after(() => server[Symbol.asyncDispose]())

const write = (sandbox: Sandbox, text: string) =>
  output(sandbox.exec(['sh', '-c', `echo ${text} | tee /root/disk > /dev/shm/memory`]))
const read = (sandbox: Sandbox) =>
  output(sandbox.exec(['sh', '-c', 'cat /root/disk; cat /dev/shm/memory 2>/dev/null || true']))
const parentOf = async (id: string) => (await server.icebox.snapshots.get(id)).parentId

test('snapshots of one sandbox form a line, a rollback branches it, and a fork shares its past', async () => {
  const { icebox } = server
  const template = await icebox.templates.get('base')
  const sandbox = await icebox.sandboxes.create({ template: 'base' })
  await write(sandbox, 'one')
  const one = await sandbox.snapshot({ name: 'one' })
  await write(sandbox, 'two')
  const two = await sandbox.snapshot({ name: 'two' })
  assert.deepEqual([await parentOf(one.id), await parentOf(two.id)], [template.snapshotId, one.id])

  const [fork] = await sandbox.fork(1)
  assert.ok(fork)
  await sandbox.rollback('one')
  assert.equal(await read(sandbox), 'one\none')
  await write(sandbox, 'three')
  const three = await sandbox.snapshot()
  assert.equal(await parentOf(three.id), one.id)
  // A pause is no point of the line.
  await sandbox.pause()
  await sandbox.resume()
  const four = await sandbox.snapshot()
  assert.equal(await parentOf(four.id), three.id)

  // The fork's past is that of its source up to the fork, and not what that did afterwards.
  assert.equal(await read(fork), 'two\ntwo')
  await fork.rollback('one')
  assert.equal(await read(fork), 'one\none')
  await assert.rejects(fork.rollback(three.id), (error) => isIceboxError(error, 'InvalidArgument'))
  assert.equal(await read(fork), 'one\none')

  // What is deleted in the middle leaves its children to its parent, and takes nobody's bytes.
  await icebox.snapshots.delete('one')
  assert.deepEqual([await parentOf(two.id), await parentOf(three.id)], [template.snapshotId, template.snapshotId])
  const again = await icebox.sandboxes.create({ snapshot: 'two' })
  assert.equal(await read(again), 'two\ntwo')
  await Promise.all([sandbox, fork, again].map((each) => each.delete()))
})

test('a filesystem snapshot keeps files and no memory; its processes do not come back', async () => {
  const sandbox = await server.icebox.sandboxes.create({ template: 'base', env: { COLOUR: 'blue' } })
  await write(sandbox, 'kept')
  await sandbox.spawn(['sleep', '1000'])
  const snapshot = await sandbox.snapshot({ kind: 'filesystem' })
  assert.equal(await read(sandbox), 'kept\nkept')
  const restored = await server.icebox.sandboxes.create({ snapshot: snapshot.id })
  assert.equal(await read(restored), 'kept')
  await assert.rejects(output(restored.exec(['pgrep', 'sleep'])))
  assert.equal(await output(restored.exec(['sh', '-c', 'echo $COLOUR'])), 'blue')
  await Promise.all([sandbox, restored].map((each) => each.delete()))
})

test('--stop deletes the sandbox once its snapshot is durable', async () => {
  const sandbox = await server.icebox.sandboxes.create({ template: 'base' })
  await write(sandbox, 'last')
  const snapshot = await sandbox.snapshot({ stop: true })
  await assert.rejects(server.icebox.sandboxes.connect(sandbox.id), (error) => isIceboxError(error, 'NotFound'))
  const restored = await server.icebox.sandboxes.create({ snapshot: snapshot.id })
  assert.equal(await read(restored), 'last\nlast')
  await restored.delete()
})

test('what others stand on is not deleted', async () => {
  const { icebox } = server
  const template = await icebox.templates.get('base')
  const sandbox = await icebox.sandboxes.create({ template: 'base' })
  const paused = await sandbox.pause()
  const inUse = (error: unknown) => isIceboxError(error, 'InUse')
  await assert.rejects(icebox.snapshots.delete(template.snapshotId ?? ''), inUse)
  await assert.rejects(icebox.snapshots.delete(paused.pausedSnapshotId ?? ''), inUse)
  await assert.rejects(icebox.images.delete(template.image), inUse)
  // A template may go: what was made from it is complete in itself.
  await icebox.templates.delete('base')
  await assert.rejects(icebox.images.delete(template.image), inUse)
  await sandbox.resume()
  assert.equal(await output(sandbox.exec(['echo', 'alive'])), 'alive')
  await sandbox.delete()
  for (const { id } of await icebox.snapshots.list()) await icebox.snapshots.delete(id)
  await icebox.images.delete(template.image)
  assert.deepEqual(await icebox.images.list(), [])
})
