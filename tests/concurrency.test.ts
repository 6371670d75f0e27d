import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { BASE_IMAGE } from '@icebox/node'
import { isIceboxError } from '@icebox/sdk'
import { buildBase, eventually, output, ServerProcess } from './server-process.ts'

let server: ServerProcess
before(async () => {
  server = await ServerProcess.start('concurrency')
  await buildBase(server.icebox, { memoryMiB: 256 })
})
after(() => server[Symbol.asyncDispose]())

const create = () => server.icebox.sandboxes.create({ template: 'base' })
const states = async () => (await server.icebox.sandboxes.list()).map(({ resource }) => resource.status.state)

test('pulls of one image at the same time are one, and all succeed', async () => {
  await using other = await ServerProcess.start('pulls')
  const images = await Promise.all(Array.from({ length: 4 }, () => other.icebox.images.pull(BASE_IMAGE)))
  assert.deepEqual(new Set(images.map(({ id }) => id)), new Set((await other.icebox.images.list()).map(({ id }) => id)))
})

test('pauses at the same time all succeed, and so do resumes, with one machine', async () => {
  const sandbox = await create()
  await output(sandbox.exec(['sh', '-c', 'echo here > /dev/shm/mark']))
  const paused = await Promise.all(Array.from({ length: 8 }, () => sandbox.pause()))
  assert.ok(paused.every(({ status }) => status.state === 'Paused'))
  assert.equal((await server.icebox.snapshots.list({ hidden: true, sandbox: sandbox.id })).length, 1)
  const resumed = await Promise.all(Array.from({ length: 8 }, () => sandbox.resume()))
  assert.ok(resumed.every(({ status }) => status.state === 'Running'))
  assert.equal(await output(sandbox.exec(['cat', '/dev/shm/mark'])), 'here')
  await sandbox.delete()
})

test('a pause and a delete at the same time: the sandbox is gone, its snapshot too', async () => {
  const sandbox = await create()
  const outcomes = await Promise.allSettled([sandbox.pause(), sandbox.delete()])
  assert.equal(outcomes[1].status, 'fulfilled')
  if (outcomes[0].status === 'rejected')
    assert.ok(isIceboxError(outcomes[0].reason, 'Conflict', 'InvalidState', 'NotFound'))
  await assert.rejects(server.icebox.sandboxes.connect(sandbox.id), (error) => isIceboxError(error, 'NotFound'))
  assert.deepEqual(await server.icebox.snapshots.list({ hidden: true, sandbox: sandbox.id }), [])
})

test('forks, snapshots and a pause at the same time: each succeeds or is refused, and nothing is left half done', async () => {
  const sandbox = await create()
  await output(sandbox.exec(['sh', '-c', 'echo here > /dev/shm/mark']))
  const [forks, snapshot, pause] = await Promise.allSettled([sandbox.fork(3), sandbox.snapshot(), sandbox.pause()])
  for (const outcome of [forks, snapshot, pause]) {
    if (outcome.status === 'rejected')
      assert.ok(isIceboxError(outcome.reason, 'Conflict', 'InvalidState'), String(outcome.reason))
  }
  if (forks.status === 'fulfilled') {
    for (const fork of forks.value) {
      assert.equal(await output(fork.exec(['cat', '/dev/shm/mark'])), 'here')
      await fork.delete()
    }
  }
  await eventually(
    async () => ((await states()).every((state) => state === 'Running' || state === 'Paused') ? true : undefined),
    'all is settled',
  )
  await sandbox.resume()
  assert.equal(await output(sandbox.exec(['cat', '/dev/shm/mark'])), 'here')
  const hidden = await server.icebox.snapshots.list({ hidden: true, sandbox: sandbox.id })
  assert.ok(hidden.length <= 2, 'no snapshot of a fork is kept')
  await sandbox.delete()
})

test('twenty forks at once all answer, each with its own identity', async () => {
  const sandbox = await create()
  const forks = await sandbox.fork(20)
  const ids = await Promise.all(forks.map((fork) => output(fork.exec(['cat', '/etc/machine-id']))))
  assert.equal(new Set(ids).size, 20)
  await Promise.all([sandbox, ...forks].map((each) => each.delete()))
  assert.deepEqual(await states(), [])
})

test('a sandbox goes when its time is over, without anything else being asked', async () => {
  const brief = await server.icebox.sandboxes.create({ template: 'base', timeout: 1 })
  assert.ok(brief.id)
  const isGone = async () => ((await states()).length === 0 ? true : undefined)
  await eventually(isGone, 'the sandbox expires')
})

test('a timeout deletes a sandbox, an extension keeps it, and both survive a restart of the server', async () => {
  const [brief, extended] = await Promise.all([
    server.icebox.sandboxes.create({ template: 'base', timeout: 6 }),
    server.icebox.sandboxes.create({ template: 'base', timeout: 6 }),
  ])
  await extended.renew({ timeout: 3600 })
  await server.kill()
  await server.restart()
  const isGone = async () => {
    const error = await server.icebox.sandboxes.connect(brief.id).then(
      () => undefined,
      (thrown: unknown) => thrown,
    )
    return isIceboxError(error, 'NotFound') ? true : undefined
  }
  await eventually(isGone, 'the sandbox expires')
  const kept = await server.icebox.sandboxes.connect(extended.id)
  assert.equal(await output(kept.exec(['echo', 'still here'])), 'still here')
  await kept.delete()
})

test('a build that never gets ready holds up neither the end of the server nor the delete of its template', async () => {
  const build = (name: string) =>
    server.icebox.templates.build({ name, image: BASE_IMAGE, readyCommand: ['sh', '-c', 'sleep 30; false'] }).then(
      () => undefined,
      (thrown: unknown) => thrown,
    )
  const isBuilding = async () => {
    const found = (await server.icebox.templates.list()).find(({ name }) => name === 'never')
    return found?.status.state === 'Creating' ? true : undefined
  }
  const cut = build('never')
  await eventually(isBuilding, 'the build begins')
  await server.down('keep')
  assert.ok(isIceboxError(await cut))
  await server.restart()
  assert.ok(await isBuilding(), 'the next start begins it again')
  const failed = build('never')
  await server.icebox.templates.delete('never')
  assert.ok(isIceboxError(await failed))
  assert.equal(await isBuilding(), undefined)
  assert.deepEqual(await states(), [])
})
