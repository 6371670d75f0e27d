import type { Readable, Writable } from 'node:stream'
import { ERRORS, type ErrorCode, IceboxError } from '@icebox/model'
import { encodeMessage, type Frame, FrameParser, KIND, MORE } from './frame.ts'
import { PayloadReader, PayloadWriter } from './payload.ts'

/** Bytes that may be sent ahead to the guest on a channel. */
const GUEST_WINDOW = 64 * 1024
/** Longest message from the guest, over all its frames. */
const MAX_REPLY = 16 * 1024 * 1024
/** Longest message to the guest. */
const MAX_REQUEST = 1024 * 1024

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

/** What a channel's owner is told. After `failed` nothing more comes. */
export interface Receiver {
  frame(kind: number, payload: PayloadReader): void
  failed(error: IceboxError): void
}

const isCode = (code: string): code is ErrorCode => Object.hasOwn(ERRORS, code)

function refusal(payload: PayloadReader): IceboxError {
  const code = payload.text()
  const errno = payload.i32()
  const message = payload.text()
  return new IceboxError(isCode(code) ? code : 'GuestFailed', message, errno === 0 ? {} : { details: { errno } })
}

/** One request and all that belongs to it. */
export class Channel {
  readonly id: number
  readonly #mux: Mux
  readonly receiver: Receiver
  #credit = GUEST_WINDOW
  #waiting: (() => void)[] = []
  /** What a later use throws; made only then, for a stack costs as much as a request. */
  #ended: (() => IceboxError) | undefined

  constructor(mux: Mux, id: number, receiver: Receiver) {
    this.#mux = mux
    this.id = id
    this.receiver = receiver
  }

  send(kind: number, payload: Uint8Array = new Uint8Array()): void {
    if (!this.#ended) this.#mux.send(kind, this.id, payload)
  }

  /** The guest may send this many more bytes of a stream. */
  grant(bytes: number, stream = 0): void {
    this.send(KIND.credit, new PayloadWriter().u8(stream).u32(bytes).done())
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
    this.#mux.forget(this.id)
    this.#wake()
  }

  /** The same, and the guest is told to forget the channel. */
  close(reason: () => IceboxError): void {
    if (this.#ended) return
    this.send(KIND.close)
    this.end(reason)
  }

  #wake(): void {
    for (const resume of this.#waiting.splice(0)) resume()
  }
}

/** Channels on one byte stream, within one epoch. */
export class Mux {
  readonly #input: Readable
  readonly #output: Writable
  readonly #epoch: number
  readonly #parser = new FrameParser()
  readonly #channels = new Map<number, Channel>()
  readonly #partial = new Map<number, Uint8Array[]>()
  #drained: (() => void)[] = []
  #lastChannel = 0
  #ended: IceboxError | undefined
  #attached: ((greeting: PayloadReader) => void) | undefined
  readonly closed: Promise<void>
  readonly #resolveClosed: () => void

  /**
   * Ends with either stream. `input` carries what the guest says, which is for `receive`; `output` what it is told. `attached` is
   * called with the guest's greeting.
   */
  constructor(input: Readable, output: Writable, epoch: number, attached: (greeting: PayloadReader) => void) {
    this.#input = input
    this.#output = output
    this.#epoch = epoch
    this.#attached = attached
    const { promise, resolve } = Promise.withResolvers<void>()
    this.closed = promise
    this.#resolveClosed = resolve
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
    output.on('drain', () => {
      for (const resume of this.#drained.splice(0)) resume()
    })
  }

  /** Opens a channel for a request. `window`: bytes the guest may send ahead on each of its streams. */
  open(operation: number, window: number, body: Uint8Array, receiver: Receiver): Channel {
    if (this.#ended) throw this.#ended
    if (body.length > MAX_REQUEST)
      throw new IceboxError('TooLarge', `the request is ${body.length} bytes long, more than ${MAX_REQUEST}`)
    // Ids are not used twice in an epoch before all others were.
    do this.#lastChannel = (this.#lastChannel % 0xffff_fffe) + 1
    while (this.#channels.has(this.#lastChannel))
    const channel = new Channel(this, this.#lastChannel, receiver)
    this.#channels.set(channel.id, channel)
    channel.send(KIND.open, new PayloadWriter().u8(operation).u32(window).raw(body).done())
    return channel
  }

  send(kind: number, channel: number, payload: Uint8Array): void {
    if (this.#ended) return
    for (const frame of encodeMessage(kind, this.#epoch, channel, payload)) this.#output.write(frame)
  }

  get isBusy(): boolean {
    return this.#output.writableNeedDrain
  }
  onceDrained(resume: () => void): void {
    this.#drained.push(resume)
  }
  forget(channel: number): void {
    this.#channels.delete(channel)
    this.#partial.delete(channel)
  }

  /** Ends every channel with the reason, and the streams. */
  destroy(reason: IceboxError): void {
    if (this.#ended) return
    this.#ended = reason
    this.#input.destroy()
    this.#output.destroy()
    for (const channel of [...this.#channels.values()]) {
      channel.end(() => reason)
      channel.receiver.failed(reason)
    }
    for (const resume of this.#drained.splice(0)) resume()
    this.#resolveClosed()
  }
  get ended(): IceboxError | undefined {
    return this.#ended
  }

  /** What the guest says. The bytes are read before it returns: the buffer is the caller's. */
  receive(bytes: Uint8Array): void {
    if (this.#ended) return
    try {
      for (const frame of this.#parser.feed(bytes)) {
        if (frame.epoch === this.#epoch) this.#dispatch(frame)
        if (this.#ended) return
      }
      // Nothing is ever lost on the way: within an epoch, bytes that are no frame mean that one side is broken.
      if (!this.#attached && this.#parser.skipped > 0) throw new Error('bytes that are no frame')
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error)
      this.destroy(new IceboxError('GuestFailed', `the guest does not keep the protocol: ${message}`, { cause: error }))
    }
  }

  #dispatch(frame: Frame): void {
    if (this.#attached) {
      if (frame.kind !== KIND.attached) return
      const attached = this.#attached
      this.#attached = undefined
      this.#parser.skipped = 0
      attached(new PayloadReader(frame.payload))
      return
    }
    const message = this.#assemble(frame)
    const channel = this.#channels.get(frame.channel)
    if (!message || !channel) return
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
    const parts = this.#partial.get(frame.channel)
    // Parts for a channel that is gone are not collected.
    if (!this.#channels.has(frame.channel)) return undefined
    if (!parts && !(frame.flags & MORE)) return Buffer.from(frame.payload)
    const whole = parts ?? []
    whole.push(Buffer.from(frame.payload))
    if (whole.reduce((sum, part) => sum + part.length, 0) > MAX_REPLY) throw new Error('a message that is too long')
    if (frame.flags & MORE) {
      this.#partial.set(frame.channel, whole)
      return undefined
    }
    this.#partial.delete(frame.channel)
    return Buffer.concat(whole)
  }
}
