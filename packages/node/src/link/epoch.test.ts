import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import { encodeFrame, KIND } from './frame.ts'
import type { GuestLink } from './link.ts'
import { PayloadWriter } from './payload.ts'
import { bytesOf, collect, ran, TestGuest } from './testing.ts'

const signal = AbortSignal.timeout(120_000)
const NUMBERS = 'i=0; while [ $i -lt 60000 ]; do i=$((i+1)); echo line $i; done'
const ALL = Array.from({ length: 60_000 }, (_, n) => `line ${n + 1}\n`).join('')

describe('a link that comes and goes', { timeout: 120_000 }, () => {
  let guest: TestGuest
  let link: GuestLink
  before(async () => {
    const started = await TestGuest.running(signal)
    guest = started.guest
    link = started.link
  })
  after(() => guest?.stop())

  test('a new one cuts off the old one; processes and what they wrote stay', async () => {
    const session = await link.exec({ argv: ['sh', '-c', 'echo before; read x; echo $x'], stdin: true }, signal)
    const waiting = link.attach(session.info.id, {}, signal)
    await waiting
    link.detach()
    await link.closed
    await assert.rejects(link.listExecs(signal), { code: 'GuestFailed' })
    const seen: string[] = []
    await assert.rejects(
      (async () => {
        for await (const event of session.events)
          if (event.type === 'output') seen.push(Buffer.from(event.data).toString())
      })(),
      { code: 'GuestFailed' },
    )
    link = await guest.attach(signal)
    const again = await link.attach(session.info.id, {}, signal)
    await again.writeStdin(Buffer.from('after\n'))
    assert.equal((await collect(again.events)).stdout, 'before\nafter\n')
  })

  test('broken again and again in mid-frame under load, no output is lost or doubled', async () => {
    const session = await link.exec({ argv: ['sh', '-c', NUMBERS], overflow: 'block', keepBytes: 65_536 }, signal)
    let got = ''
    let epochs = 0
    const reading = async (from: GuestLink) => {
      const attached = await from.attach(session.info.id, { stdout: got.length }, signal)
      for await (const event of attached.events) {
        if (event.type === 'gap') assert.fail(`gap from ${event.from} to ${event.to}`)
        if (event.type === 'exit') return true
        assert.equal(event.offset, got.length)
        got += Buffer.from(event.data).toString()
      }
      return true
    }
    for (let done = false; !done; epochs++) {
      const current = link
      // Frames in both directions are under way when the sockets go.
      const busy = current.writeFile('/tmp/busy', endless(), {}, signal).catch(() => {})
      const cut = sleep(epochs % 7, undefined).then(() => current.detach())
      done = await reading(current).catch((error) => {
        assert.equal(error.code, 'GuestFailed')
        return false
      })
      await cut
      await busy
      // As a server does that was killed in the middle of a write.
      writeHalf(guest.paths.in)
      link = await guest.attach(signal)
    }
    assert.ok(epochs > 3, `${epochs} epochs`)
    assert.equal(got, ALL)
    assert.equal((await ran(link, 'ls -A /tmp', signal)).stdout, '')
  })

  test('a server that is killed leaves nothing that its successor trips over', async () => {
    // Reads nothing: both FIFOs are full when it is killed.
    const program = `
      import { attachLink } from ${JSON.stringify(new URL('./attach.ts', import.meta.url).href)}
      const signal = AbortSignal.timeout(60_000)
      const link = await attachLink(${JSON.stringify(guest.paths)}, signal)
      const session = await link.exec({ argv: ['sh', '-c', 'seq 1 300000; echo end'], overflow: 'block', tag: 'orphan' }, signal)
      const body = (async function* () { for (;;) yield Buffer.alloc(1_000_000, 0xf1) })()
      void link.writeFile('/tmp/never', body, {}, signal)
      for await (const event of session.events) { process.stdout.write('going\\n'); for (;;); }`
    link.detach()
    const server = spawn(process.execPath, ['--input-type=module', '-e', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    await once(server.stdout, 'data')
    server.kill('SIGKILL')
    await once(server, 'exit')
    link = await guest.attach(signal)
    const orphan = (await link.listExecs(signal)).find(({ tag }) => tag === 'orphan')
    assert.ok(orphan)
    const rest = await collect((await link.attach(orphan.id, { stdout: 0 }, signal)).events)
    assert.deepEqual(rest.gaps, [])
    assert.equal(rest.stdout.length, 1_988_899)
    assert.ok(rest.stdout.endsWith('300000\nend\n'))
    assert.equal((await ran(link, 'ls -A /tmp', signal)).stdout, '')
  })

  test('while nobody is there processes go on as far as their exec allows', async () => {
    const dropping = await link.exec({ argv: ['sh', '-c', 'seq 1 1000000; touch /tmp/dropped'] }, signal)
    await link.exec({ argv: ['sh', '-c', 'seq 1 1000000; touch /tmp/blocked'], overflow: 'block' }, signal)
    link.detach()
    // Nobody reads for longer than a process waits for a reader that is there.
    await sleep(3000)
    link = await guest.attach(signal)
    while (!(await link.listExecs(signal)).find(({ id }) => id === dropping.info.id)?.exit) await sleep(10)
    assert.equal((await ran(link, 'ls /tmp', signal)).stdout, 'dropped\n')
  })

  test('an idle agent does nothing', async () => {
    const switches = async () =>
      Number((await ran(link, "sed -n 's/^voluntary_ctxt_switches:\\s*//p' /proc/1/status", signal)).stdout)
    const resting = await switches()
    const once = (await switches()) - resting
    link.detach()
    await sleep(1500)
    link = await guest.attach(signal)
    assert.ok((await switches()) - resting - 2 * once < 20)
  })

  test('rubbish on the stream, and any request, do not bring the agent down', async () => {
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 300 }).map((payload) => Buffer.from(payload)),
      fc
        .tuple(
          fc.integer({ min: 0, max: 11 }),
          fc.integer({ min: 0, max: 3 }),
          fc.integer({ min: 0, max: 40 }),
          fc.uint8Array({ maxLength: 60 }),
        )
        .map(([kind, channel, operation, rest]) =>
          encodeFrame({
            kind,
            flags: operation % 2,
            epoch: EPOCH,
            channel,
            payload: Buffer.of(operation, 0, 0, 1, 0, ...rest),
          }),
        ),
      // Requests that are well formed up to a point.
      fc
        .tuple(
          fc.integer({ min: 0, max: 40 }),
          fc.array(fc.oneof(fc.string({ maxLength: 8 }), fc.constantFrom('/', '/tmp', 'root', 'tester', 'true')), {
            maxLength: 4,
          }),
          fc.nat(),
        )
        .map(([operation, words, at]) => {
          const writer = new PayloadWriter().u8(operation).u32(65_536)
          for (const word of words) writer.text(word)
          const payload = writer.u32(at).u64(at).done()
          return encodeFrame({ kind: KIND.open, flags: 0, epoch: EPOCH, channel: at % 5, payload })
        }),
    )
    link.detach()
    await fc.assert(
      fc.asyncProperty(fc.array(bytes, { minLength: 1, maxLength: 20 }), async (stream) => {
        const attach = encodeFrame({
          kind: KIND.attach,
          flags: 0,
          epoch: 0,
          channel: 0,
          payload: new PayloadWriter().u32(EPOCH).done(),
        })
        writeAll(guest.paths, Buffer.concat([attach, ...stream]))
        const after = await guest.attach(signal)
        await after.release(signal)
        assert.deepEqual((await ran(after, 'echo alive', signal)).stdout, 'alive\n')
        after.detach()
      }),
      { numRuns: 150 },
    )
    link = await guest.attach(signal)
  })

  test('frames of an epoch that is over, and answers to it, reach nobody', async () => {
    const stale = encodeFrame({
      kind: KIND.open,
      flags: 0,
      epoch: EPOCH,
      channel: 1,
      payload: new PayloadWriter().u8(26).u32(0).text('root').text('/tmp/keep').done(),
    })
    await link.writeFile('/tmp/keep', bytesOf('x'), {}, signal)
    writeAll(guest.paths, stale)
    assert.equal((await link.stat('/tmp/keep', {}, signal)).size, 1)
  })

  test('nobody there: said at once; a guest that does not answer: said at the deadline', async () => {
    await assert.rejects(guest.attach(AbortSignal.abort()), { code: 'DeadlineExceeded' })
    const gone = await TestGuest.start(signal)
    const last = await gone.attach(signal)
    const call = last.exec({ argv: ['sleep', '1000'] }, signal).then(({ events }) => collect(events))
    gone.crash()
    await assert.rejects(call, { code: 'GuestFailed' })
    await last.closed
    await assert.rejects(gone.attach(signal), { code: 'GuestFailed' })
    await gone.stop()
  })
})

const EPOCH = 0x1234_5678

async function* endless() {
  for (;;) yield Buffer.alloc(20_000, 0xf1)
}

function writeHalf(path: string): void {
  const frame = encodeFrame({ kind: KIND.data, flags: 0, epoch: 1, channel: 1, payload: Buffer.alloc(30_000, 1) })
  const fd = openSync(path, constants.O_WRONLY)
  try {
    writeSync(fd, frame, 0, 10_000)
  } finally {
    closeSync(fd)
  }
}

/** Writes it all, and takes what is answered meanwhile, so that the agent does not stop reading. */
function writeAll(paths: { in: string; out: string }, bytes: Buffer): void {
  const input = openSync(paths.in, constants.O_WRONLY)
  const output = openSync(paths.out, constants.O_RDONLY | constants.O_NONBLOCK)
  try {
    writeSync(input, bytes)
    readSync(output, Buffer.alloc(65_536))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
  } finally {
    closeSync(input)
    closeSync(output)
  }
}
