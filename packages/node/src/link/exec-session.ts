import {
  type ExecEvent,
  type ExecInfo,
  type ExecRequest,
  type ExecSession,
  IceboxError,
  ITEM_BYTES,
  type Reservation,
} from '@icebox/model'
import { KIND, MAX_PAYLOAD } from './frame.ts'
import { aborted, type Channel, type Mux, within } from './mux.ts'
import { type PayloadReader, PayloadWriter } from './payload.ts'
import { ANSWER_MS, Request, unanswered, WINDOW } from './request.ts'
import { EXEC_EVENT, OP, readExecInfo, readExit, signalNumber } from './wire.ts'

const STREAMS = ['stdout', 'stderr'] as const
const OVERFLOWS = ['drop', 'block', 'follow'] as const
/** Events that wait for a consumer. What follows on its predecessor is joined with it, so an honest guest stays far below. */
const MAX_EVENTS = 16_384
/** Output that waits is joined up to this many bytes: enough that credit bounds the events too, little enough to copy. */
const JOINED = 1024

export const execBody = (request: ExecRequest): Buffer =>
  new PayloadWriter()
    .list(request.argv, (w, argument) => w.text(argument))
    .list(Object.entries(request.env), (w, [name, value]) => w.text(name).text(value))
    .text(request.cwd ?? '')
    .text(request.user ?? '')
    .option(request.tag, (w, tag) => w.text(tag))
    .option(request.pty, (w, { cols, rows }) => w.u16(cols).u16(rows))
    .u8(request.stdin ? 1 : 0)
    .option(request.timeoutMs, (w, timeout) => w.u64(timeout))
    .u32(request.keepBytes)
    .u8(OVERFLOWS.indexOf(request.overflow))
    .done()

export const attachBody = (id: string, from: { stdout?: number; stderr?: number }): Buffer => {
  const writer = new PayloadWriter().u64(execId(id))
  for (const stream of STREAMS) writer.option(from[stream], (w, offset) => w.u64(offset))
  return writer.done()
}

function execId(id: string): bigint {
  if (/^\d{1,18}$/.test(id)) return BigInt(id)
  throw new IceboxError('NotFound', `no exec ${JSON.stringify(id)}: ids are decimal numbers`)
}

/**
 * Starts or attaches: `operation` says which. The signal matters until the guest has answered. Without a window the guest sends
 * no output, and does not take the session for a reader.
 */
export async function openSession(
  mux: Mux,
  operation: number,
  body: Uint8Array,
  signal: AbortSignal,
  window = WINDOW,
): Promise<ExecSession> {
  const session = new Session(mux, window)
  try {
    await session.open(operation, body, signal)
    return session
  } catch (error) {
    session.detach()
    throw error
  }
}

type OutputEvent = Extract<ExecEvent, { type: 'output' }>

class Session implements ExecSession {
  readonly #mux: Mux
  readonly #window: number
  readonly #ahead: Reservation
  #channel: Channel | undefined
  #info: ExecInfo | undefined
  readonly #queue: ExecEvent[] = []
  /** Output that was given out and is not known to have been read, oldest first. */
  readonly #delivered: OutputEvent[] = []
  /** The last of each stream in the queue, which what follows may be joined with. */
  readonly #last: (Exclude<ExecEvent, { type: 'exit' }> | undefined)[] = []
  /** For what is in the queue or given out. */
  readonly #held: Reservation
  #kept = 0
  #acknowledging = false
  readonly #unread = [0, 0]
  readonly #owed = [0, 0]
  /** Why nothing more comes although nothing has failed. */
  #over: (() => IceboxError) | undefined
  #failure: IceboxError | undefined
  #wake: (() => void) | undefined
  /** Where the next write without an offset goes. */
  #written = 0
  #taken = 0
  #stdinClosed = false
  #watchers: (() => void)[] = []
  #writes: Promise<unknown> = Promise.resolve()

  constructor(mux: Mux, window: number) {
    this.#mux = mux
    const ahead = mux.ahead(window)
    this.#window = ahead.window
    this.#ahead = ahead.held
    this.#held = mux.hold()
  }

  async open(operation: number, body: Uint8Array, signal: AbortSignal): Promise<void> {
    // A process whose caller has been told that it was too late must not start.
    if (signal.aborted) throw aborted(signal)
    const begun = Promise.withResolvers<void>()
    begun.promise.catch(() => {})
    const channel = this.#mux.open(operation, this.#window, body, {
      frame: (kind, payload) => {
        if (kind !== KIND.reply) {
          if (!this.#info) throw new Error('a session that has not begun')
          this.#frame(kind, payload)
          return
        }
        if (this.#info) throw new Error('a second answer')
        this.#info = readExecInfo(payload)
        this.#written = this.#taken = this.#info.stdinBytes
        begun.resolve()
      },
      failed: (error) => {
        begun.reject(error)
        this.#fail(error)
      },
    })
    this.#channel = channel
    const late = setTimeout(() => begun.reject(unanswered(ANSWER_MS)), ANSWER_MS)
    try {
      await within(begun.promise, signal)
    } catch (error) {
      channel.close(() => IceboxError.from(error))
      throw error
    } finally {
      clearTimeout(late)
    }
  }

  get info(): ExecInfo {
    if (!this.#info) throw new IceboxError('Internal', 'the session has not begun')
    return this.#info
  }

  /** A loop that was left can be taken up again by another one. */
  readonly events: AsyncIterable<ExecEvent> = { [Symbol.asyncIterator]: () => ({ next: () => this.#next() }) }

  async #next(): Promise<IteratorResult<ExecEvent, undefined>> {
    // Who asks for more has done with the last: until then the guest keeps it for whoever comes after a crash.
    if (!this.#acknowledging) for (const event of this.#delivered.splice(0)) this.#consumed(event)
    for (;;) {
      const event = this.#queue.shift()
      if (event) {
        if (event.type !== 'exit' && this.#last[STREAMS.indexOf(event.stream)] === event)
          this.#last[STREAMS.indexOf(event.stream)] = undefined
        if (event.type === 'output') this.#delivered.push(event)
        else this.#keep(-ITEM_BYTES)
        return { done: false, value: event }
      }
      if (this.#failure) throw this.#failure
      if (this.#over) return { done: true, value: undefined }
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#wake = resolve
      await promise
    }
  }

  holdUntilAcknowledged(): void {
    this.#acknowledging = true
  }

  acknowledge(before: { stdout?: number | undefined; stderr?: number | undefined }): void {
    const waiting = this.#delivered.splice(0)
    for (const event of waiting) {
      if (event.offset + event.data.length <= (before[event.stream] ?? 0)) this.#consumed(event)
      else this.#delivered.push(event)
    }
  }

  writeStdin(data: Uint8Array, options: { offset?: number; signal?: AbortSignal } = {}): Promise<void> {
    return this.#inTurn(() => this.#write(data, options), options.signal)
  }

  closeStdin(signal?: AbortSignal): Promise<void> {
    return this.#inTurn(() => {
      this.#channel?.send(KIND.end, new PayloadWriter().u64(this.#written).done())
      return this.#until(() => this.#stdinClosed)
    }, signal)
  }

  async resize(cols: number, rows: number, signal?: AbortSignal): Promise<void> {
    const body = new PayloadWriter().u64(execId(this.info.id)).u16(cols).u16(rows).done()
    await this.#ask(OP.resize, body, signal)
  }

  async kill(signalName: string, signal?: AbortSignal): Promise<void> {
    const body = new PayloadWriter().u64(execId(this.info.id)).u32(signalNumber(signalName)).done()
    await this.#ask(OP.signal, body, signal)
  }

  async #ask(operation: number, body: Uint8Array, signal = new AbortController().signal): Promise<void> {
    await new Request(this.#mux, operation, body, signal, { answerWithin: ANSWER_MS }).only()
  }

  detach(): void {
    this.#over ??= () => new IceboxError('GuestFailed', 'the session was detached')
    this.#channel?.close(this.#over)
    this.#queue.length = 0
    this.#last.length = 0
    this.#release()
    this.#notify()
  }

  /** Writes go one after the other, whoever asks. One that was given up does not hold up the next. */
  #inTurn(write: () => Promise<void>, signal: AbortSignal | undefined): Promise<void> {
    const turn = within(
      this.#writes.then(() => {
        signal?.throwIfAborted()
        return write()
      }),
      signal,
    )
    this.#writes = turn.catch(() => {})
    return turn
  }

  async #write(data: Uint8Array, options: { offset?: number; signal?: AbortSignal }): Promise<void> {
    const offset = options.offset ?? this.#written
    if (offset > Math.max(this.#written, this.#taken))
      throw new IceboxError('InvalidArgument', `stdin has got ${this.#taken} bytes: offset ${offset} would leave a gap`)
    const end = offset + data.length
    for (let at = offset; at < end && !this.#stdinClosed; ) {
      const channel = this.#channel
      if (!channel) break
      const length = await channel.room(Math.min(end - at, MAX_PAYLOAD - 8), options.signal)
      const part = data.subarray(at - offset, at - offset + length)
      channel.send(KIND.data, new PayloadWriter().u64(at).raw(part).done())
      at += length
      this.#written = Math.max(this.#written, at)
    }
    await this.#until(() => this.#taken >= end || this.#stdinClosed)
    if (this.#taken < end)
      throw new IceboxError('InvalidState', `the process of exec ${this.info.id} has closed its stdin`)
  }

  async #until(reached: () => boolean): Promise<void> {
    while (!reached()) {
      if (this.#failure) throw this.#failure
      if (this.#over) throw this.#over()
      await new Promise<void>((resolve) => this.#watchers.push(resolve))
    }
  }

  #frame(kind: number, payload: PayloadReader): void {
    if (kind === KIND.data) {
      const stream = payload.u8()
      const name = STREAMS[stream]
      const offset = payload.u64()
      const data = Buffer.from(payload.rest())
      const unread = (this.#unread[stream] ?? 0) + data.length
      if (!name || unread > this.#window) throw new Error('more output than was granted')
      this.#unread[stream] = unread
      if (data.length > 0) this.#enqueue({ type: 'output', stream: name, offset, data })
    }
    if (kind === KIND.event) this.#event(payload)
  }

  #event(payload: PayloadReader): void {
    const kind = payload.u8()
    if (kind === EXEC_EVENT.gap) {
      const stream = STREAMS[payload.u8()]
      const [from, to] = [payload.u64(), payload.u64()]
      if (stream) this.#enqueue({ type: 'gap', stream, from, to })
    } else if (kind === EXEC_EVENT.exit) {
      this.#enqueue({ type: 'exit', exit: readExit(payload) })
      this.#over = () => new IceboxError('InvalidState', `exec ${this.info.id} has exited`)
      this.#channel?.end(this.#over)
      this.#release()
    } else if (kind === EXEC_EVENT.stdinTaken) {
      this.#taken = Math.max(this.#taken, payload.u64())
    } else if (kind === EXEC_EVENT.stdinClosed) {
      this.#stdinClosed = true
    }
    this.#notify()
  }

  #enqueue(event: ExecEvent): void {
    if (this.#join(event)) return
    if (this.#queue.length < MAX_EVENTS) {
      this.#queue.push(event)
      if (event.type !== 'exit') this.#last[STREAMS.indexOf(event.stream)] = event
      this.#keep(ITEM_BYTES + (event.type === 'output' ? event.data.length : 0))
    } else {
      // One reader that stands still must not cost the others their link.
      const error = new IceboxError('GuestFailed', `exec ${this.info.id} has more events than anybody could read`)
      this.#channel?.close(() => error)
      this.#fail(error)
    }
    this.#notify()
  }

  /** Whether it could be made part of the last event of its stream, which nobody has seen yet. */
  #join(event: ExecEvent): boolean {
    if (event.type === 'exit') return false
    const last = this.#last[STREAMS.indexOf(event.stream)]
    if (last?.type === 'gap' && event.type === 'gap' && last.to === event.from) {
      last.to = event.to
      return true
    }
    if (last?.type !== 'output' || event.type !== 'output') return false
    const length = last.data.length + event.data.length
    if (last.offset + last.data.length !== event.offset || length > JOINED) return false
    last.data = Buffer.concat([last.data, event.data], length)
    this.#keep(event.data.length)
    return true
  }

  /** What waits may still be read; it goes with its reader. */
  #release(): void {
    this.#held.release()
    this.#ahead.release()
  }

  #keep(more: number): void {
    this.#kept += more
    this.#mux.keep(this.#held, this.#kept)
  }

  #consumed({ stream, data }: OutputEvent): void {
    const index = STREAMS.indexOf(stream)
    this.#keep(-data.length - ITEM_BYTES)
    this.#owed[index] = (this.#owed[index] ?? 0) + data.length
    // At the latest when all is read: a process that waits for its reader may be kept to less than a grant.
    const least = this.#acknowledging || this.#queue.length === 0 ? 1 : this.#window / 4
    for (const [each, owed] of this.#owed.entries()) {
      if (owed < least) continue
      this.#owed[each] = 0
      this.#unread[each] = (this.#unread[each] ?? 0) - owed
      this.#channel?.grant(owed, each)
    }
  }

  #fail(error: IceboxError): void {
    if (!this.#over) this.#failure ??= error
    this.#release()
    this.#notify()
  }

  #notify(): void {
    this.#wake?.()
    for (const resume of this.#watchers.splice(0)) resume()
  }
}
