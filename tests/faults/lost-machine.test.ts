import assert from 'node:assert/strict'
import { readdir, readFile, realpath, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { isIceboxError, type Sandbox } from '@icebox/sdk'
import { runDirectoryOf } from '@icebox/snapshot'
import { buildBase, eventually, output, ServerProcess } from '../server-process.ts'

let server: ServerProcess
let machines: string
before(async () => {
  server = await ServerProcess.start('lost')
  machines = join(runDirectoryOf(await realpath(server.dataDirectory)), 'machines')
  await buildBase(server.icebox, { memoryMiB: 128 })
})
after(() => server[Symbol.asyncDispose]())

/** Process ids of the sentries of all machines that run now. */
async function sentries(): Promise<number[]> {
  const names = await readdir(machines)
  return Promise.all(
    names.map(async (name) => JSON.parse(await readFile(join(machines, name, 'machine.json'), 'utf8')).process.pid),
  )
}
/** Kills them all. One whose sandbox was paused just now may be on its way out already. */
async function killSentries(): Promise<void> {
  for (const pid of await sentries())
    try {
      process.kill(pid, 'SIGKILL')
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error
    }
}

const failed = (sandbox: Sandbox) =>
  eventually(async () => {
    const { status } = await sandbox.info()
    return status.state === 'Failed' ? status : undefined
  }, `${sandbox.id} fails`)

test('a sandbox whose kernel dies is failed with the reason, leaves nothing, and can be rolled back', async () => {
  const sandbox = await server.icebox.sandboxes.create({ template: 'base' })
  await output(sandbox.exec(['sh', '-c', 'echo kept > /dev/shm/mark']))
  const snapshot = await sandbox.snapshot()
  const [pid] = await sentries()
  assert.ok(pid)
  process.kill(pid, 'SIGKILL')
  const status = await failed(sandbox)
  assert.equal(status.reason, 'Crashed')
  assert.match(status.message ?? '', new RegExp(`rollback ${sandbox.id} ${snapshot.id}`))
  assert.deepEqual(await readdir(machines), [])
  await assert.rejects(output(sandbox.exec(['true'])), (error) => isIceboxError(error, 'InvalidState'))
  await sandbox.rollback(snapshot.id)
  assert.equal(await output(sandbox.exec(['cat', '/dev/shm/mark'])), 'kept')
  await sandbox.delete()
})

test('one that uses more memory than it has is failed as OutOfMemory, and its neighbour does not notice', async () => {
  const [greedy, neighbour] = await Promise.all([
    server.icebox.sandboxes.create({ template: 'base' }),
    server.icebox.sandboxes.create({ template: 'base' }),
  ])
  await output(neighbour.exec(['sh', '-c', 'echo mine > /dev/shm/mark']))
  await greedy.spawn(['python3', '-c', 'data = bytearray(1 << 30)\nfor i in range(0, len(data), 4096): data[i] = 1'])
  assert.equal((await failed(greedy)).reason, 'OutOfMemory')
  assert.equal(await output(neighbour.exec(['cat', '/dev/shm/mark'])), 'mine')
  await Promise.all([greedy.delete(), neighbour.delete()])
})

test('after a restart of the host the running ones are failed as HostRestarted, the paused ones are as they were', async () => {
  const [running, paused] = await Promise.all([
    server.icebox.sandboxes.create({ template: 'base' }),
    server.icebox.sandboxes.create({ template: 'base' }),
  ])
  const snapshot = await running.snapshot()
  await output(paused.exec(['sh', '-c', 'echo paused > /dev/shm/mark']))
  await paused.pause()
  await server.kill()
  // A host that was restarted has none of the processes and another boot id.
  await killSentries()
  await writeFile(join(server.dataDirectory, 'boot'), '00000000-0000-4000-8000-000000000000\n')
  for (const name of await readdir(machines)) {
    const file = join(machines, name, 'machine.json')
    const record = JSON.parse(await readFile(file, 'utf8'))
    await writeFile(file, JSON.stringify({ ...record, bootId: '00000000-0000-4000-8000-000000000000' }))
  }
  await server.restart()
  const lost = await server.icebox.sandboxes.connect(running.id)
  const { status } = await lost.info()
  assert.deepEqual([status.state, status.reason], ['Failed', 'HostRestarted'])
  await lost.rollback(snapshot.id)
  assert.equal(await output(lost.exec(['echo', 'alive'])), 'alive')
  const kept = await server.icebox.sandboxes.connect(paused.id)
  await kept.resume()
  assert.equal(await output(kept.exec(['cat', '/dev/shm/mark'])), 'paused')
  await Promise.all([lost.delete(), kept.delete()])
})

test('the same when the run directory went with the host', async () => {
  const running = await server.icebox.sandboxes.create({ template: 'base' })
  await server.kill()
  await killSentries()
  await writeFile(join(server.dataDirectory, 'boot'), '00000000-0000-4000-8000-000000000000\n')
  // What the driver would find is gone too: it only has what the data directory says.
  for (const name of await readdir(machines)) await writeFile(join(machines, name, 'machine.json'), '{}')
  await server.restart()
  const lost = await server.icebox.sandboxes.connect(running.id)
  assert.equal((await lost.info()).status.reason, 'HostRestarted')
  assert.deepEqual(await readdir(machines), [])
  await lost.delete()
})
