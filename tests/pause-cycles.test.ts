import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import type { Sandbox } from '@icebox/sdk'
import { buildBase, output, ServerProcess } from './server-process.ts'

const CYCLES = 10
/** After these cycles the server is killed while the sandbox runs, after those while it is paused. */
const KILL_RUNNING = [3, 7]
const KILL_PAUSED = [5]

let server: ServerProcess
before(async () => {
  server = await ServerProcess.start('cycles')
  await buildBase(server.icebox, { memoryMiB: 512, diskMiB: 512 })
})
after(() => server[Symbol.asyncDispose]())

/** Changes 64 MiB of tmpfs and 64 MiB of disk, a part of it each time, and tells the hashes of both. */
const change = (sandbox: Sandbox, cycle: number) =>
  output(
    sandbox.exec([
      'sh',
      '-c',
      `set -e
       for directory in /dev/shm /root; do
         test -e $directory/data || head -c 67108864 /dev/urandom > $directory/data
         head -c 8388608 /dev/urandom | dd of=$directory/data bs=1M seek=${(cycle * 7) % 56} conv=notrunc status=none
       done
       cat /dev/shm/data /root/data | sha256sum`,
    ]),
  )
const hashes = (sandbox: Sandbox) => output(sandbox.exec(['sh', '-c', 'cat /dev/shm/data /root/data | sha256sum']))

test('ten pauses with a changing 64 MiB of memory and of disk lose no byte, through kills of the server', async () => {
  let sandbox = await server.icebox.sandboxes.create({ template: 'base' })
  const { id } = sandbox
  const waiter = await sandbox.spawn(['sh', '-c', 'while :; do sleep 0.05; done'])
  for (let cycle = 1; cycle <= CYCLES; cycle += 1) {
    const before = await change(sandbox, cycle)
    if (KILL_RUNNING.includes(cycle)) {
      await server.kill()
      await server.restart()
      sandbox = await server.icebox.sandboxes.connect(id)
      assert.equal(await hashes(sandbox), before, `cycle ${cycle}: after a kill while it ran`)
    }
    await sandbox.pause()
    if (KILL_PAUSED.includes(cycle)) {
      await server.kill()
      await server.restart()
      sandbox = await server.icebox.sandboxes.connect(id)
      assert.equal((await sandbox.info()).status.state, 'Paused')
    }
    await sandbox.resume()
    assert.equal(sandbox.id, id)
    assert.equal(await hashes(sandbox), before, `cycle ${cycle}: after pause and resume`)
  }
  const waiting = (await sandbox.execs()).find((exec) => exec.id === waiter.id)
  assert.equal(waiting?.exit, undefined, 'a process of before the first pause still runs')
  // Each pause replaces the snapshot of the one before.
  const hidden = await server.icebox.snapshots.list({ hidden: true, sandbox: id })
  assert.equal(hidden.length, 1)
})

test('`down` pauses what runs, and the next start resumes it and nothing else', async () => {
  const [running, paused] = await Promise.all([
    server.icebox.sandboxes.create({ template: 'base' }),
    server.icebox.sandboxes.create({ template: 'base' }),
  ])
  await output(running.exec(['sh', '-c', 'echo here > /dev/shm/mark']))
  await paused.pause()
  await server.down('pause')
  await server.restart()
  const [again, still] = await Promise.all([running.id, paused.id].map((id) => server.icebox.sandboxes.connect(id)))
  assert.equal((await still?.info())?.status.state, 'Paused')
  // It may still be on its way back; resume joins that.
  await again?.resume()
  assert.equal(again && (await output(again.exec(['cat', '/dev/shm/mark']))), 'here')
})
