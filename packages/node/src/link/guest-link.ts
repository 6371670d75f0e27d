import { randomBytes } from 'node:crypto'
import {
  type ExecInfo,
  type ExecInput,
  ExecRequest,
  type ExecSession,
  type FileAccess,
  type FileEvent,
  type FileInfo,
  type FileMore,
  type GuestConnection,
  type GuestMetrics,
  type Hello,
  IceboxError,
  isError,
  Pace,
} from '@icebox/model'
import { attachBody, execBody, openSession } from './exec-session.ts'
import type { GuestLink } from './link.ts'
import { listingBudget, readListing } from './listing.ts'
import type { Mux } from './mux.ts'
import { type PayloadReader, PayloadWriter } from './payload.ts'
import { ANSWER_MS, Request } from './request.ts'
import { WatchQueue } from './watch-queue.ts'
import { OP, readExecInfo, readFileInfo, readMetrics } from './wire.ts'

const HELLO_ENTROPY = 32
/** What it remembers is fewer; each that runs is one. */
const MAX_EXECS = 50_000
/** Variables of one exec, of which the guest cuts off all beyond 4 KiB. */
const MAX_ENV = 4096

/** The guest's operations over an attached mux. */
export class MuxedGuestLink implements GuestLink {
  readonly #mux: Mux
  readonly #listings = listingBudget()
  readonly closed: Promise<void>

  constructor(mux: Mux) {
    this.#mux = mux
    this.closed = mux.closed
  }

  detach(): void {
    this.#mux.destroy(new IceboxError('GuestFailed', 'the link to the guest was let go'))
  }

  async hello(hello: Hello, signal: AbortSignal): Promise<void> {
    const body = helloBody(hello, Date.now(), randomBytes(HELLO_ENTROPY))
    await this.#order(OP.hello, body, signal)
  }

  async quiesce(signal: AbortSignal): Promise<void> {
    await this.#order(OP.quiesce, new Uint8Array(), signal)
  }

  async release(signal: AbortSignal): Promise<void> {
    await this.#order(OP.release, new Uint8Array(), signal)
  }

  async exec(input: ExecInput, signal: AbortSignal): Promise<ExecSession> {
    const request = ExecRequest.safeParse(input)
    if (!request.success)
      throw new IceboxError('InvalidArgument', `exec: ${request.error.message}`, { cause: request.error })
    return openSession(this.#mux, OP.exec, execBody(request.data), signal)
  }

  async listExecs(signal: AbortSignal): Promise<ExecInfo[]> {
    const request = new Request(this.#mux, OP.execs, new Uint8Array(), signal, { answerWithin: ANSWER_MS })
    try {
      return await readExecs(await request.reply)
    } finally {
      request.finish()
    }
  }

  async attach(
    id: string,
    from: { stdout?: number; stderr?: number } | 'none',
    signal: AbortSignal,
  ): Promise<ExecSession> {
    if (from === 'none') return openSession(this.#mux, OP.attach, attachBody(id, {}), signal, 0)
    return openSession(this.#mux, OP.attach, attachBody(id, from), signal)
  }

  async readFile(
    path: string,
    options: FileAccess & { offset?: number; length?: number },
    signal: AbortSignal,
  ): Promise<{ info: FileInfo; data: AsyncIterable<Uint8Array> }> {
    const body = onPath(options, path)
      .u64(options.offset ?? 0)
      .option(options.length, (w, length) => w.u64(length))
    const request = new Request(this.#mux, OP.read, withExtras(body, options).done(), signal, {
      answerWithin: ANSWER_MS,
    })
    return { info: readFileInfo(await request.reply), data: request.data() }
  }

  async writeFile(
    path: string,
    data: AsyncIterable<Uint8Array>,
    options: FileAccess & { mode?: number; xattrs?: Record<string, string> },
    signal: AbortSignal,
  ): Promise<FileInfo> {
    const body = onPath(options, path).option(options.mode, (w, mode) => w.u32(mode))
    if (options.privileged === true || options.xattrs)
      withExtras(body, { ...options, xattrs: undefined }, true).list(
        Object.entries(options.xattrs ?? {}),
        (w, [name, value]) => w.text(name).text(value),
      )
    const request = new Request(this.#mux, OP.write, body.done(), signal)
    const send = async (): Promise<PayloadReader> => {
      for await (const bytes of data) await request.write(bytes)
      request.end()
      return request.reply
    }
    try {
      // The guest may refuse, or the caller give up, while the data take their time: those are left with what comes of them next.
      return readFileInfo(await Promise.race([request.reply, send()]))
    } finally {
      request.finish()
    }
  }

  async stat(path: string, options: FileAccess & FileMore, signal: AbortSignal): Promise<FileInfo> {
    return readFileInfo(await this.#ask(OP.stat, withExtras(onPath(options, path), options).done(), signal))
  }

  async list(
    path: string,
    options: FileAccess & FileMore & { depth?: number },
    signal: AbortSignal,
  ): Promise<FileInfo[]> {
    const body = onPath(options, path).u32(options.depth ?? 1)
    const request = new Request(this.#mux, OP.list, withExtras(body, options).done(), signal, {
      answerWithin: ANSWER_MS,
    })
    try {
      const reply = await request.reply
      // An agent that does not know of them says nothing.
      const hasExtras = !reply.isEmpty && reply.u8() === 1
      return await readListing(request.data(), hasExtras, this.#listings)
    } finally {
      request.finish()
    }
  }

  async makeDirectory(path: string, options: FileAccess & { mode?: number }, signal: AbortSignal): Promise<boolean> {
    const body = onPath(options, path).option(options.mode, (w, mode) => w.u32(mode))
    return (await this.#ask(OP.makeDirectory, withExtras(body, options).done(), signal)).u8() === 1
  }

  async move(from: string, to: string, options: FileAccess & FileMore, signal: AbortSignal): Promise<FileInfo> {
    const body = withExtras(onPath(options, from).text(to), options)
    return readFileInfo(await new Request(this.#mux, OP.move, body.done(), signal).only())
  }

  async symlink(target: string, path: string, options: FileAccess, signal: AbortSignal): Promise<FileInfo> {
    return readFileInfo(await this.#ask(OP.symlink, onPath(options, path).text(target).done(), signal))
  }

  async setXattr(path: Uint8Array, name: string, value: Uint8Array, signal: AbortSignal): Promise<void> {
    const body = new PayloadWriter().text('').u32(path.length).raw(path).text(name).u32(value.length).raw(value)
    await this.#ask(OP.setXattr, body.done(), signal)
  }

  async remove(path: string, options: FileAccess, signal: AbortSignal): Promise<void> {
    await new Request(this.#mux, OP.remove, withExtras(onPath(options, path), options).done(), signal).only()
  }

  async setAttributes(
    path: string,
    change: { mode?: number; owner?: string },
    options: FileAccess,
    signal: AbortSignal,
  ): Promise<FileInfo> {
    const body = onPath(options, path)
      .option(change.mode, (w, mode) => w.u32(mode))
      .option(change.owner, (w, owner) => w.text(owner))
      .done()
    return readFileInfo(await this.#ask(OP.setAttributes, body, signal))
  }

  async watch(
    path: string,
    options: FileAccess & { recursive?: boolean },
    signal: AbortSignal,
  ): Promise<AsyncIterable<FileEvent>> {
    const held = this.#mux.hold()
    const queue = new WatchQueue(held)
    const body = onPath(options, path).u8(options.recursive ? 1 : 0)
    const request = new Request(this.#mux, OP.watch, withExtras(body, options).done(), signal, {
      answerWithin: ANSWER_MS,
      onEvent: (payload) => queue.read(payload),
      onEnd: () => held.release(),
    })
    await request.reply
    return request.events(queue)
  }

  async dial(port: number, signal: AbortSignal): Promise<GuestConnection> {
    if (!Number.isInteger(port) || port < 1 || port > 65_535)
      throw new IceboxError('InvalidArgument', `${port} is not a TCP port`)
    const request = new Request(this.#mux, OP.dial, new PayloadWriter().u16(port).done(), signal, {
      answerWithin: ANSWER_MS,
    })
    try {
      await request.reply
    } catch (error) {
      const failure = IceboxError.from(error)
      throw new IceboxError(failure.code, failure.message, { cause: error, details: { ...failure.details, port } })
    }
    request.keep()
    return {
      readable: request.data(),
      write: (data) => request.write(data),
      async end() {
        request.end()
      },
      destroy: () => request.destroy(new IceboxError('GuestFailed', `the connection to port ${port} was closed`)),
    }
  }

  async metrics(signal: AbortSignal): Promise<GuestMetrics> {
    return readMetrics(await this.#ask(OP.metrics, new Uint8Array(), signal))
  }

  async #ask(operation: number, body: Uint8Array, signal: AbortSignal): Promise<PayloadReader> {
    return new Request(this.#mux, operation, body, signal, { answerWithin: ANSWER_MS }).only()
  }

  /** What the node itself wants of the guest. What the guest says to it decides nothing: it has obeyed or it has failed. */
  async #order(operation: number, body: Uint8Array, signal: AbortSignal): Promise<void> {
    try {
      await this.#ask(operation, body, signal)
    } catch (error) {
      // Of what the guest refuses with, only the words remain.
      if (signal.aborted || isError(error, 'DeadlineExceeded', 'TooManyRequests', 'GuestFailed')) throw error
      const { message } = IceboxError.from(error)
      throw new IceboxError('GuestFailed', `the guest did not do as it was told: ${message}`, { cause: error })
    }
  }
}

async function readExecs(reply: PayloadReader): Promise<ExecInfo[]> {
  const pace = new Pace()
  const execs: ExecInfo[] = []
  const length = reply.count()
  if (length > MAX_EXECS) throw new IceboxError('GuestFailed', 'the guest listed more execs than there can be')
  for (let n = 0; n < length; n += 1) {
    execs.push(readExecInfo(reply))
    await pace.turn()
  }
  // An agent of an older snapshot says nothing more.
  if (reply.isEmpty) return execs
  for (const [n, exec] of execs.entries()) {
    const env = Object.fromEntries(reply.list((r) => [r.text(), r.text()] as const, MAX_ENV))
    if (!exec.exit) execs[n] = { ...exec, env }
    await pace.turn()
  }
  return execs
}

/** `now`: milliseconds since the epoch. `entropy`: 32 bytes. */
export const helloBody = (hello: Hello, now: number, entropy: Buffer): Buffer =>
  new PayloadWriter()
    .u64(BigInt(now) * 1_000_000n)
    .raw(entropy)
    .text(hello.hostname)
    .text(hello.machineId)
    .list(Object.entries(hello.env), (w, [name, value]) => w.text(name).text(value))
    .text(hello.defaults.user)
    .text(hello.defaults.workingDir)
    .text(hello.sandbox)
    .done()

const onPath = (options: FileAccess, path: string): PayloadWriter =>
  new PayloadWriter().text(options.user ?? '').text(path)

/** The fields that every operation on files may end with. They are left out where they would say nothing. */
const withExtras = (body: PayloadWriter, options: FileAccess & FileMore, always = false): PayloadWriter =>
  always || options.privileged === true || options.xattrs !== undefined
    ? body.u8(options.privileged === true ? 1 : 0).option(options.xattrs, (w, prefix) => w.text(prefix))
    : body
