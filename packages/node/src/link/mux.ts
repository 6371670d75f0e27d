import type { Readable, Writable } from 'node:stream'
import { Budget, type ErrorCode, IceboxError, ITEM_BYTES, isError, Pace, type Reservation } from '@icebox/model'
import { AHEAD_BYTES, LEAST_WINDOW, LINK_BYTES, LINKS, OUTGOING_BYTES } from './budget.ts'
import { encodeMessage, type Frame, FrameParser, HEADER, KIND, MAX_PAYLOAD, MORE } from './frame.ts'
import { PayloadReader, PayloadWriter } from './payload.ts'

/** Bytes that may be sent ahead to the guest on a channel. */
const GUEST_WINDOW = 64 * 1024
/** Longest message from the guest, over all its frames. */
const MAX_REPLY = 16 * 1024 * 1024
/** Longest message to the guest. */
const MAX_REQUEST = 1024 * 1024
/** What a channel holds, for itself and for the frames without content that may wait on it: credit and its close. */
const CHANNEL_BYTES = 4 * ITEM_BYTES
/** Bytes that may come before the guest's greeting: the queues of an agent and a pipe are shorter. */
const MAX_BEFORE_GREETING = 8 * 1024 * 1024
/** Frames between two looks at the clock. */
const FRAMES_AT_ONCE = 64

/** What the caller's signal means for what was under way. */
export function aborted(signal: AbortSignal): IceboxError {
  const error = IceboxError.from(signal.reason)
  if (error.code !== 'Internal') return error
  return new IceboxError('DeadlineExceeded', 'the request to the guest was aborted', { cause: signal.reason })
}

/** Waits for the promise, no longer than the signal allows. */
export async function within<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise
  // What comes of it after the signal is nobody's.
  promise.catch(() => {})
  if (signal.aborted) throw aborted(signal)
  const { promise: stopped, reject } = Promise.withResolvers<never>()
  const stop = () => reject(aborted(signal))
  signal.addEventListener('abort', stop)
  try {
    return await Promise.race([promise, stopped])
  } finally {
    signal.removeEventListener('abort', stop)
  }
}

/**
 * What a channel's owner is told. After `failed` nothing more comes. The payload is a view, to be read before `frame` returns. What it
 * throws ends the link.
 */
export interface Receiver {
  frame(kind: number, payload: PayloadReader): void
  failed(error: IceboxError): void
}

/** All that a guest can say of itself: no code of these speaks for the server, such as one that asks for a key. */
const GUEST_CODES: readonly string[] = [
  'NotFound',
  'AlreadyExists',
  'InvalidArgument',
  'InvalidState',
  'TooLarge',
  'NoSpace',
  'NoMemory',
  // Of its own files, processes and watches: `HELLO` and what surrounds a save never end with it.
  'TooManyRequests',
  'NotImplemented',
] satisfies ErrorCode[]
const isGuestCode = (code: string): code is ErrorCode => GUEST_CODES.includes(code)
const MAX_ERRNO = 4095

function refusal(payload: PayloadReader): IceboxError {
  const code = payload.words()
  const errno = payload.i32()
  const message = payload.words()
  const details = errno > 0 && errno <= MAX_ERRNO ? { errno } : {}
  return new IceboxError(isGuestCode(code) ? code : 'GuestFailed', message, { details })
}

/** Frames that wait for the guest, of one message. */
interface Outgoing {
  readonly channel: Channel
  readonly kind: number
  frames: Buffer[]
  /** Whether some of them have left. */
  begun: boolean
  readonly held: Reservation | undefined
}

/** One request and all that belongs to it. */
export class Channel {
  readonly id: number
  readonly #mux: Mux
  readonly receiver: Receiver
  /** What of it waits for the guest. */
  readonly outgoing = new Set<Outgoing>()
  /** Credit that waits, by stream. */
  readonly #grants = new Map<number, { bytes: number; waiting: Outgoing }>()
  readonly #held: Reservation
  #credit = GUEST_WINDOW
  #waiting: (() => void)[] = []
  /** What a later use throws; made only then, for a stack costs as much as a request. */
  #ended: (() => IceboxError) | undefined

  constructor(mux: Mux, id: number, receiver: Receiver, held: Reservation) {
    this.#mux = mux
    this.id = id
    this.receiver = receiver
    this.#held = held
  }

  /** Throws `TooManyRequests` when too much waits for the guest. */
  send(kind: number, payload: Uint8Array = new Uint8Array()): void {
    if (!this.#ended) this.#mux.send(kind, this, payload)
  }

  /** The guest may send this many more bytes of a stream. */
  grant(bytes: number, stream = 0): void {
    if (this.#ended) return
    // What has not left grows: a guest that does not listen costs one frame a stream.
    const known = this.#grants.get(stream)
    const more = known !== undefined && this.outgoing.has(known.waiting) ? known.bytes : 0
    if (known !== undefined) this.#mux.withdraw(known.waiting)
    const total = more + bytes
    const waiting = this.#mux.post(KIND.credit, this, new PayloadWriter().u8(stream).u32(total).done())
    if (waiting === undefined) this.#grants.delete(stream)
    else this.#grants.set(stream, { bytes: total, waiting })
  }

  credited(bytes: number): void {
    this.#credit += bytes
    this.#wake()
  }

  /** Waits until the guest takes data on this channel and the wire has room; then at most this many bytes may be sent. */
  async room(max: number, signal?: AbortSignal): Promise<number> {
    for (;;) {
      if (this.#ended) throw this.#ended()
      if (this.#credit > 0 && !this.#mux.isBusy) {
        const bytes = Math.min(max, this.#credit)
        this.#credit -= bytes
        return bytes
      }
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#waiting.push(resolve)
      if (this.#mux.isBusy) this.#mux.onceDrained(resolve)
      await within(promise, signal)
    }
  }

  /** No more frames either way. */
  end(reason: () => IceboxError): void {
    this.#ended ??= reason
    this.#mux.forget(this)
    this.#held.release()
    this.#wake()
  }

  /** The same, and the guest is told to forget the channel. */
  close(reason: () => IceboxError): void {
    if (this.#ended) return
    const isUnheardOf = [...this.outgoing].some(({ kind, begun }) => kind === KIND.open && !begun)
    this.end(reason)
    if (!isUnheardOf) this.#mux.post(KIND.close, this, new Uint8Array())
  }

  #wake(): void {
    for (const resume of this.#waiting.splice(0)) resume()
  }
}

/** A message that has not come whole. */
interface PartialMessage {
  readonly kind: number
  readonly parts: Buffer[]
  bytes: number
  readonly held: Reservation
}

/** All that are attached, for when their memory together is used up. */
const attached = new Set<Mux>()

/** Channels on one byte stream, within one epoch. */
export class Mux {
  readonly #input: Readable
  readonly #output: Writable
  readonly #epoch: number
  readonly #parser = new FrameParser()
  readonly #channels = new Map<number, Channel>()
  readonly #partial = new Map<number, PartialMessage>()
  readonly #budget = new Budget('the link to the guest', LINK_BYTES, LINKS)
  readonly #outgoingBudget = new Budget('what waits for the guest', OUTGOING_BYTES, this.#budget)
  /** Promised to streams, most of which never use it: so it is of no budget of all links. */
  readonly #ahead = new Budget('what the guest may send ahead', AHEAD_BYTES)
  /** In the order in which it leaves. */
  readonly #outgoing = new Set<Outgoing>()
  #drained: (() => void)[] = []
  #lastChannel = 0
  #beforeGreeting = 0
  /** Whether what has come is dealt with in later turns. */
  #isBehind = false
  #ended: IceboxError | undefined
  #attached: ((greeting: PayloadReader) => void) | undefined
  readonly closed: Promise<void>
  readonly #resolveClosed: () => void

  /**
   * Ends with either stream. `input` carries what the guest says, which is for `receive`; `output` what it is told. `greeted` is
   * called with the guest's greeting.
   */
  constructor(input: Readable, output: Writable, epoch: number, greeted: (greeting: PayloadReader) => void) {
    this.#input = input
    this.#output = output
    this.#epoch = epoch
    this.#attached = greeted
    const { promise, resolve } = Promise.withResolvers<void>()
    this.closed = promise
    this.#resolveClosed = resolve
    attached.add(this)
    const gone = () => this.destroy(new IceboxError('GuestFailed', 'the link to the guest has ended'))
    const failed = (error: Error) =>
      this.destroy(
        new IceboxError('GuestFailed', `the link to the guest has failed: ${error.message}`, { cause: error }),
      )
    for (const stream of new Set<Readable | Writable>([input, output])) {
      stream.on('error', failed)
      stream.on('close', gone)
    }
    input.on('end', gone)
    output.on('drain', () => this.#flush())
  }

  /** Bytes kept for this guest and of what it sent. */
  get kept(): number {
    return this.#budget.used
  }

  /**
   * Opens a channel for a request. `window`: bytes the guest may send ahead on each of its streams. Throws `TooManyRequests` when too
   * much waits for the guest.
   */
  open(operation: number, window: number, body: Uint8Array, receiver: Receiver): Channel {
    if (this.#ended) throw this.#ended
    if (body.length > MAX_REQUEST)
      throw new IceboxError('TooLarge', `the request is ${body.length} bytes long, more than ${MAX_REQUEST}`)
    const held = this.#reserveOutgoing(CHANNEL_BYTES)
    // Ids are not used twice in an epoch before all others were.
    do this.#lastChannel = (this.#lastChannel % 0xffff_fffe) + 1
    while (this.#channels.has(this.#lastChannel))
    const channel = new Channel(this, this.#lastChannel, receiver, held)
    this.#channels.set(channel.id, channel)
    try {
      channel.send(KIND.open, new PayloadWriter().u8(operation).u32(window).raw(body).done())
    } catch (error) {
      const failure = IceboxError.from(error)
      channel.end(() => failure)
      throw failure
    }
    return channel
  }

  /** Throws `TooManyRequests`, and has sent nothing, when the message has to wait and there is no room for it. */
  send(kind: number, channel: Channel, payload: Uint8Array): void {
    if (this.#ended) return
    const mayWait = this.isBusy || payload.length > MAX_PAYLOAD
    const frames = Math.ceil(payload.length / MAX_PAYLOAD) || 1
    const held = mayWait ? this.#reserveOutgoing(payload.length + frames * (HEADER + ITEM_BYTES)) : undefined
    this.post(kind, channel, payload, held)
  }

  /** The same of what the channel holds memory for. Answers what of it has to wait. */
  post(kind: number, channel: Channel, payload: Uint8Array, held?: Reservation): Outgoing | undefined {
    if (this.#ended) {
      held?.release()
      return undefined
    }
    const frames = [...encodeMessage(kind, this.#epoch, channel.id, payload)]
    const outgoing: Outgoing = { channel, kind, frames, begun: false, held }
    this.#outgoing.add(outgoing)
    channel.outgoing.add(outgoing)
    this.#write()
    return this.#outgoing.has(outgoing) ? outgoing : undefined
  }

  /** Has it not sent, as far as it has not left. */
  withdraw(outgoing: Outgoing): void {
    this.#outgoing.delete(outgoing)
    outgoing.channel.outgoing.delete(outgoing)
    outgoing.held?.release()
  }

  #write(): void {
    for (const outgoing of this.#outgoing) {
      while (outgoing.frames.length > 0) {
        if (this.#ended || this.#output.writableNeedDrain) return
        const frame = outgoing.frames.shift()
        outgoing.begun = true
        if (frame) this.#output.write(frame)
      }
      this.withdraw(outgoing)
    }
  }

  #flush(): void {
    this.#write()
    if (!this.isBusy) for (const resume of this.#drained.splice(0)) resume()
  }

  get isBusy(): boolean {
    return this.#output.writableNeedDrain || this.#outgoing.size > 0
  }
  onceDrained(resume: () => void): void {
    this.#drained.push(resume)
  }
  /** Nothing is kept for or of the channel any more. */
  forget(channel: Channel): void {
    for (const outgoing of [...channel.outgoing]) this.withdraw(outgoing)
    if (this.#channels.get(channel.id) !== channel) return
    this.#channels.delete(channel.id)
    this.#partial.get(channel.id)?.held.release()
    this.#partial.delete(channel.id)
  }

  /** What a stream may be granted ahead: as much as it wants unless there are many. `held` goes with the stream. */
  ahead(wanted: number): { window: number; held: Reservation } {
    const left = AHEAD_BYTES - this.#ahead.used
    let window = wanted
    while (window > LEAST_WINDOW && window > left / 8) window /= 2
    return { window, held: this.#ahead.reserve(Math.min(window, left)) }
  }

  /** For what comes from the guest and is kept: holds nothing yet. */
  hold(): Reservation {
    return this.#budget.reserve(0)
  }

  /**
   * Has the reservation hold so much. Throws `GuestFailed` where the guest has sent more than this link may keep.
   */
  keep(held: Reservation, bytes: number): void {
    try {
      this.#makingRoom(() => held.resize(bytes))
    } catch (error) {
      if (!isError(error, 'TooManyRequests')) throw error
      throw new IceboxError('GuestFailed', `the guest sent more than can be kept: ${error.message}`)
    }
  }

  #reserveOutgoing(bytes: number): Reservation {
    return this.#makingRoom(() => this.#outgoingBudget.reserve(bytes))
  }

  /** Where the memory of all links is full, others end that keep more than this one: a few that flood do not stop the rest. */
  #makingRoom<T>(reserve: () => T): T {
    for (;;) {
      try {
        return reserve()
      } catch (error) {
        if (!isError(error, 'TooManyRequests') || error.details.budget !== LINKS.name) throw error
        const most = [...attached].reduce<Mux>((one, other) => (other.kept > one.kept ? other : one), this)
        if (most === this) throw error
        most.destroy(new IceboxError('GuestFailed', `the guest kept the most while ${error.message}`))
      }
    }
  }

  /** Ends every channel with the reason, and the streams. */
  destroy(reason: IceboxError): void {
    if (this.#ended) return
    this.#ended = reason
    attached.delete(this)
    this.#input.destroy()
    this.#output.destroy()
    for (const channel of [...this.#channels.values()]) {
      channel.end(() => reason)
      channel.receiver.failed(reason)
    }
    for (const outgoing of [...this.#outgoing]) this.withdraw(outgoing)
    for (const resume of this.#drained.splice(0)) resume()
    this.#resolveClosed()
  }
  get ended(): IceboxError | undefined {
    return this.#ended
  }

  /**
   * What the guest says. The bytes are read before it returns: the buffer is the caller's. False when they will take a while: the caller
   * then waits with more until the input is resumed.
   */
  receive(bytes: Uint8Array): boolean {
    if (this.#ended) return false
    const pace = new Pace()
    let frames = 0
    try {
      if (this.#attached) {
        this.#beforeGreeting += bytes.length
        if (this.#beforeGreeting > MAX_BEFORE_GREETING) throw new Error('it does not greet')
      }
      for (const frame of this.#parser.feed(bytes)) {
        if (frame.epoch === this.#epoch) this.#dispatch(frame)
        if (this.#ended) return false
        this.#refuseRubbish()
        frames += 1
        if (frames % FRAMES_AT_ONCE === 0 && pace.isDue) return this.#later()
      }
      this.#refuseRubbish()
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error)
      this.destroy(new IceboxError('GuestFailed', `the guest does not keep the protocol: ${message}`, { cause: error }))
    }
    return !this.#isBehind && !this.#ended
  }

  /** Nothing is ever lost on the way: within an epoch, bytes that are no frame mean that one side is broken. */
  #refuseRubbish(): void {
    if (!this.#attached && this.#parser.skipped > 0) throw new Error('bytes that are no frame')
  }

  /** Goes on with what has come once all others had their turn. */
  #later(): false {
    if (this.#isBehind) return false
    this.#isBehind = true
    this.#input.pause()
    setImmediate(() => {
      this.#isBehind = false
      if (this.receive(new Uint8Array())) this.#input.resume()
    })
    return false
  }

  #dispatch(frame: Frame): void {
    if (this.#attached) {
      if (frame.kind !== KIND.attached) return
      const greeted = this.#attached
      this.#attached = undefined
      this.#parser.skipped = 0
      greeted(new PayloadReader(frame.payload))
      return
    }
    const channel = this.#channels.get(frame.channel)
    // What comes for a channel that is gone is not kept.
    if (!channel) return
    const message = this.#assemble(frame)
    if (!message) return
    const payload = new PayloadReader(message)
    if (frame.kind === KIND.credit) {
      payload.u8()
      channel.credited(payload.u32())
    } else if (frame.kind === KIND.error) {
      const error = refusal(payload)
      channel.end(() => error)
      channel.receiver.failed(error)
    } else {
      channel.receiver.frame(frame.kind, payload)
    }
  }

  #assemble(frame: Frame): Uint8Array | undefined {
    const begun = this.#partial.get(frame.channel)
    if (!begun && !(frame.flags & MORE)) return frame.payload
    const whole = begun ?? { kind: frame.kind, parts: [], bytes: 0, held: this.hold() }
    this.#partial.set(frame.channel, whole)
    if (whole.kind !== frame.kind) throw new Error('a message within another')
    whole.bytes += frame.payload.length
    if (whole.bytes > MAX_REPLY) throw new Error('a message that is too long')
    this.keep(whole.held, whole.bytes + (whole.parts.length + 1) * ITEM_BYTES)
    whole.parts.push(Buffer.from(frame.payload))
    if (frame.flags & MORE) return undefined
    this.#partial.delete(frame.channel)
    whole.held.release()
    return Buffer.concat(whole.parts)
  }
}
