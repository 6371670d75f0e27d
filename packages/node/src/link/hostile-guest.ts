import { PassThrough } from 'node:stream'
import type { ExecSession } from '@icebox/model'
import { attachBody, openSession } from './exec-session.ts'
import { encodeFrame, KIND, MAX_PAYLOAD, MORE } from './frame.ts'
import { MuxedGuestLink } from './guest-link.ts'
import { Mux } from './mux.ts'
import { PayloadWriter } from './payload.ts'
import { Request } from './request.ts'
import { EXEC_EVENT, OP } from './wire.ts'

/** For tests: what a guest may send that keeps to the frames and to nothing else. Run as a program it is sent, under a memory limit. */
const EPOCH = 7
const MIB = 1024 * 1024
const MAX_CHANNELS = 200
const FOREVER = new AbortController().signal

const text = (value: string) => new PayloadWriter().text(value).done()
const frame = (kind: number, channel: number, payload: Uint8Array, flags = 0) =>
  encodeFrame({ kind, flags, epoch: EPOCH, channel, payload })

export const record = (path: string) =>
  new PayloadWriter()
    .text(path)
    .text(path.slice(path.lastIndexOf('/') + 1))
    .u8(0)
    .u64(1)
    .u32(0o644)
    .u32(0)
    .u32(0)
    .text('root')
    .text('root')
    .u64(0)
    .u8(0)
    .done()

export const execRecord = (argv: string[], pid = 1) =>
  new PayloadWriter()
    .u64(1)
    .u32(pid)
    .list(argv, (w, argument) => w.text(argument))
    .text('/')
    .text('root')
    .u8(0)
    .u8(0)
    .u64(0)
    .u64(0)
    .u64(0)
    .u64(0)
    .u8(0)
    .done()

/** A link whose other end is ours. */
export class Forged {
  readonly #input = new PassThrough()
  /** Nobody reads what the guest is told. */
  readonly mux = new Mux(this.#input, new PassThrough({ highWaterMark: 64 * 1024 }), EPOCH, () => {})
  readonly link = new MuxedGuestLink(this.mux)
  #resumed = Promise.withResolvers<void>()

  constructor() {
    this.#input.on('resume', () => this.#resumed.resolve())
    this.mux.receive(frame(KIND.attached, 0, new PayloadWriter().u8(1).text('test').done()))
  }

  /** Waits until it was dealt with. */
  async say(bytes: Uint8Array): Promise<void> {
    this.#resumed = Promise.withResolvers<void>()
    if (!this.mux.receive(bytes) && !this.mux.ended) await Promise.race([this.#resumed.promise, this.mux.closed])
  }

  /** Waits until what it said has a reader, so that what it says next is within what it was granted. */
  async read(): Promise<void> {
    while (this.mux.kept > MAX_PAYLOAD && !this.mux.ended) await new Promise((resolve) => setImmediate(resolve))
  }

  /** The same bytes again and again, unless the link ends. */
  async repeat(bytes: Uint8Array, total: number): Promise<void> {
    const chunk = Buffer.concat(Array.from({ length: Math.ceil((256 * 1024) / bytes.length) }, () => bytes))
    for (let said = 0; said < total && !this.mux.ended; said += chunk.length) await this.say(chunk)
  }
}

const request = (forged: Forged, operation: number = OP.dial) => {
  const made = new Request(forged.mux, operation, new Uint8Array(), FOREVER)
  return made
}
const channels = Array.from({ length: MAX_CHANNELS }, (_, n) => n + 1)
const onAll = (make: (channel: number) => Uint8Array) => Buffer.concat(channels.map(make))

async function sessions(forged: Forged): Promise<ExecSession[]> {
  const opened = channels.map(() => openSession(forged.mux, OP.attach, attachBody('1', {}), FOREVER))
  await forged.say(onAll((channel) => frame(KIND.reply, channel, execRecord(['x']))))
  return Promise.all(opened)
}

/** Each sends what it says, and answers what became of whoever asked. */
export const FLOODS: Record<string, (forged: Forged, bytes: number) => Promise<unknown>> = {
  async 'data without content'(forged, bytes) {
    for (const _ of channels) request(forged)
    await forged.repeat(
      onAll((channel) => frame(KIND.data, channel, new Uint8Array())),
      bytes / 4,
    )
  },
  async 'data byte by byte, more than was granted'(forged, bytes) {
    for (const _ of channels) request(forged)
    await forged.repeat(
      onAll((channel) => frame(KIND.data, channel, Buffer.of(1))),
      bytes,
    )
  },
  async 'messages that do not end'(forged, bytes) {
    for (const _ of channels) request(forged)
    await forged.repeat(
      onAll((channel) => frame(KIND.reply, channel, Buffer.alloc(MAX_PAYLOAD), MORE)),
      bytes,
    )
  },
  async 'messages of nothing that do not end'(forged, bytes) {
    for (const _ of channels) request(forged)
    await forged.repeat(
      onAll((channel) => frame(KIND.event, channel, new Uint8Array(), MORE)),
      bytes,
    )
  },
  async 'long answers'(forged, bytes) {
    for (const _ of channels) request(forged)
    const part = Buffer.alloc(MAX_PAYLOAD)
    for (const channel of channels) {
      for (let n = 0; n < 400 && !forged.mux.ended; n += 1) await forged.say(frame(KIND.reply, channel, part, MORE))
      await forged.say(frame(KIND.reply, channel, part))
    }
    await forged.repeat(frame(KIND.reply, 1, part), bytes)
  },
  async 'changes of files'(forged, bytes) {
    for (const _ of channels) void forged.link.watch('/', {}, FOREVER).catch(() => {})
    await forged.say(onAll((channel) => frame(KIND.reply, channel, new Uint8Array())))
    const event = new PayloadWriter().u8(1).text('/'.padEnd(500, 'é')).done()
    await forged.repeat(
      onAll((channel) => frame(KIND.event, channel, event)),
      bytes,
    )
  },
  async 'gaps in the output of execs'(forged, bytes) {
    const opened = await sessions(forged)
    for (let at = 0, said = 0; said < bytes / 4 && !forged.mux.ended; at += 1) {
      const gap = new PayloadWriter()
        .u8(EXEC_EVENT.gap)
        .u8(0)
        .u64(2 * at)
        .u64(2 * at + 1)
        .done()
      const all = onAll((channel) => frame(KIND.event, channel, gap))
      said += all.length
      await forged.say(all)
    }
    return opened.length
  },
  async 'answers of many items'(forged, bytes) {
    const listed = forged.link.listExecs(FOREVER).catch((error) => String(error))
    const item = execRecord(Array.from({ length: 100_000 }, () => ''))
    const message = Buffer.concat([new PayloadWriter().u32(35).done(), ...Array.from({ length: 35 }, () => item)])
    for (let at = 0; at < message.length; at += MAX_PAYLOAD)
      await forged.say(
        frame(KIND.reply, 1, message.subarray(at, at + MAX_PAYLOAD), at + MAX_PAYLOAD < message.length ? MORE : 0),
      )
    await forged.repeat(frame(KIND.reply, 1, message.subarray(0, MAX_PAYLOAD)), bytes / 4)
    return listed
  },
  async 'a listing without end'(forged, bytes) {
    const listed = forged.link.list('/', {}, FOREVER).then(
      (entries) => entries.length,
      (error) => String(error),
    )
    await forged.say(frame(KIND.reply, 1, Buffer.of(0)))
    const part = Buffer.concat(Array.from({ length: 150 }, () => record('/'.padEnd(60, 'x'))))
    for (let said = 0; said < bytes && !forged.mux.ended; said += part.length) {
      await forged.say(frame(KIND.data, 1, part))
      await forged.read()
    }
    if (!forged.mux.ended) await forged.say(frame(KIND.end, 1, new Uint8Array()))
    return listed
  },
  async 'a refusal without end'(forged, bytes) {
    const asked = forged.link.metrics(FOREVER).catch((error) => String(error))
    await forged.say(frame(KIND.error, 1, text('Unauthorized'), MORE))
    await forged.repeat(frame(KIND.error, 1, Buffer.alloc(MAX_PAYLOAD, '\u001b'), MORE), bytes)
    return asked
  },
}

if (import.meta.main) {
  const forged = new Forged()
  const flood = FLOODS[process.argv[2] ?? '']
  const before = process.memoryUsage().rss
  let most = 0
  const timer = setInterval(() => {
    most = Math.max(most, process.memoryUsage().rss - before)
  }, 20)
  await flood?.(forged, 200 * MIB)
  clearInterval(timer)
  most = Math.max(most, process.memoryUsage().rss - before)
  const kept = forged.mux.kept
  forged.link.detach()
  process.stdout.write(JSON.stringify({ ended: forged.mux.ended?.code, most, kept, after: forged.mux.kept }))
}
