import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { buildBase, output, ServerProcess } from '../server-process.ts'

/** Kills while execs stream both ways, each in the middle of whatever frame is on the link at that moment. */
const KILLS = 5
const LINES = 600_000

let server: ServerProcess
before(async () => {
  server = await ServerProcess.start('load')
  await buildBase(server.icebox, { memoryMiB: 256 })
})
after(() => server[Symbol.asyncDispose]())

test('a server killed in the middle of frames loses no output and no input of what runs', async () => {
  const { id } = await server.icebox.sandboxes.create({ template: 'base' })
  const sandbox = () => server.icebox.sandboxes.connect(id)
  const first = await sandbox()
  // Blocks when nobody reads: what it has written when it ends is what was read.
  const writer = await first.spawn(['sh', '-c', `seq 1 ${LINES}; echo end`], { overflow: 'block', keepBytes: 16_384 })
  const counter = await first.spawn(['sh', '-c', 'wc -c'], { stdin: true })

  let lines = Buffer.alloc(0)
  let sent = 0
  let ended = false
  let kills = 0
  for (let round = 0; !ended; round += 1) {
    const box = await sandbox()
    const reading = box.attach(writer.id, { stdoutFrom: lines.length })
    const input = box.attach(counter.id)
    input.started.catch(() => undefined)
    const feed = (async () => {
      // Each attachment begins at the offset that the guest has taken, so that nothing is taken twice.
      for (; sent < 2_000_000 && !ended; sent += 10_000) await input.stdin.write(Buffer.alloc(10_000, 'x'))
    })()
    const killed = Promise.withResolvers<void>()
    let seen = 0
    const read = (async () => {
      for await (const event of reading) {
        if (event.type === 'gap') throw new Error('output was dropped')
        if (event.type === 'exit') ended = true
        if (event.type !== 'output') continue
        assert.equal(event.offset, lines.length, 'output goes on where it was')
        lines = Buffer.concat([lines, event.data])
        seen += 1
        if (seen === 3 && round < KILLS) {
          // Time for the server to send ahead what it may.
          await sleep(300)
          await server.kill()
          kills += 1
          killed.resolve()
        }
      }
      killed.resolve()
    })()
    await killed.promise
    reading.detach()
    input.detach()
    await Promise.allSettled([read, feed])
    if (round < KILLS) await server.restart()
  }
  assert.equal(kills, KILLS)
  const expected = Array.from({ length: LINES }, (_, index) => `${index + 1}\n`).join('')
  assert.equal(lines.toString(), `${expected}end\n`)

  const box = await sandbox()
  const taken = (await box.execs()).find((exec) => exec.id === counter.id)?.stdinBytes ?? 0
  const rest = box.attach(counter.id)
  await rest.stdin.close()
  assert.equal((await rest).stdout.trim(), String(taken), 'the process got exactly the bytes that were taken')
  assert.equal(await output(box.exec(['echo', 'alive'])), 'alive')
})

test('an exec that a client waits for goes on over a kill of the server', async () => {
  const sandbox = await server.icebox.sandboxes.create({ template: 'base' })
  const marker = await sandbox.spawn(['sh', '-c', 'for i in $(seq 1 40); do echo $i >> /tmp/steps; sleep 0.05; done'])
  await sleep(0)
  await server.kill()
  await server.restart()
  const again = await server.icebox.sandboxes.connect(sandbox.id)
  const { exitCode } = await again.attach(marker.id)
  assert.equal(exitCode, 0)
  assert.equal(await output(again.exec(['sh', '-c', 'wc -l < /tmp/steps'])), '40')
})
