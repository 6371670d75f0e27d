import { IceboxError } from '@icebox/model'
import { KIND, MAX_PAYLOAD } from './frame.ts'
import { aborted, type Channel, type Mux } from './mux.ts'
import type { PayloadReader } from './payload.ts'

/** Bytes the guest may send ahead on a stream. */
export const WINDOW = 256 * 1024
/** The same of one whose reader has kept up so far: what waits for credit moves at half the speed. */
export const WIDE_WINDOW = 1024 * 1024
/** So many streams of this process are wide at once: a reader that then stands still holds back all that it was sent. */
export const MAX_WIDE = 64
let wide = 0

/**
 * A request that is answered by one REPLY, and the streams that may come with it: bytes from the guest, sent as fast as they are
 * read, and bytes to it. The signal ends all of it, until `keep`.
 */
export class Request {
  readonly #channel: Channel
  readonly #reply = Promise.withResolvers<PayloadReader>()
  readonly #signal: AbortSignal
  readonly #stop: () => void
  readonly #onEvent: (payload: PayloadReader) => void
  readonly #queue: Buffer[] = []
  #window = WINDOW
  #unread = 0
  #owed = 0
  #read = 0
  #ended = false
  #failure: IceboxError | undefined
  #wake: (() => void) | undefined

  constructor(
    mux: Mux,
    operation: number,
    body: Uint8Array,
    signal: AbortSignal,
    onEvent: (payload: PayloadReader) => void = () => {},
  ) {
    this.#onEvent = onEvent
    if (signal.aborted) throw aborted(signal)
    // It is thrown where it is waited for, also when nobody waits any more.
    this.#reply.promise.catch(() => {})
    this.#signal = signal
    this.#stop = () => this.destroy(aborted(signal))
    this.#channel = mux.open(operation, WINDOW, body, {
      frame: (kind, payload) => this.#frame(kind, payload),
      failed: (error) => this.#fail(error),
    })
    signal.addEventListener('abort', this.#stop)
  }

  get reply(): Promise<PayloadReader> {
    return this.#reply.promise
  }

  /** The answer of a request that has no streams. */
  async only(): Promise<PayloadReader> {
    try {
      return await this.#reply.promise
    } finally {
      this.finish()
    }
  }

  /** From here on the signal means nothing to it. */
  keep(): void {
    this.#signal.removeEventListener('abort', this.#stop)
  }

  /** One consumer. Leaving the loop early ends the request. */
  async *data(): AsyncGenerator<Buffer, void, void> {
    try {
      while (await this.#something(() => this.#queue.length > 0)) {
        const bytes = this.#queue.shift()
        if (!bytes) continue
        yield bytes
        this.#consumed(bytes.length)
      }
    } finally {
      this.finish()
    }
  }

  /** What the event handler puts into the queue, until the signal aborts. */
  async *events<T>(queue: T[]): AsyncGenerator<T, void, void> {
    try {
      while (await this.#something(() => queue.length > 0)) {
        const event = queue.shift()
        if (event !== undefined) yield event
      }
    } catch (error) {
      if (!this.#signal.aborted) throw error
    } finally {
      this.finish()
    }
  }

  /** Waits until something is there. False when nothing more will come. */
  async #something(isThere: () => boolean): Promise<boolean> {
    while (!isThere()) {
      if (this.#failure) throw this.#failure
      if (this.#ended) return false
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#wake = resolve
      await promise
    }
    return true
  }

  /** Sends bytes as fast as the guest takes them. */
  async write(bytes: Uint8Array): Promise<void> {
    for (let rest = bytes; rest.length > 0; ) {
      const length = await this.#channel.room(Math.min(rest.length, MAX_PAYLOAD))
      this.#channel.send(KIND.data, rest.subarray(0, length))
      rest = rest.subarray(length)
    }
  }

  /** No more bytes come from us. */
  end(): void {
    this.#channel.send(KIND.end)
  }

  /** The guest has said all there is, or need not. */
  finish(): void {
    this.destroy(new IceboxError('GuestFailed', 'the request is over'))
  }

  destroy(reason: IceboxError): void {
    this.#channel.close(() => reason)
    this.#fail(reason)
  }

  #frame(kind: number, payload: PayloadReader): void {
    if (kind === KIND.event) this.#onEvent(payload)
    if (kind === KIND.reply) this.#reply.resolve(payload)
    if (kind === KIND.end) this.#ended = true
    if (kind === KIND.data) {
      const bytes = payload.rest()
      this.#unread += bytes.length
      if (this.#unread > this.#window) throw new Error('more data than was granted')
      this.#queue.push(bytes)
    }
    this.#wake?.()
  }

  #consumed(bytes: number): void {
    this.#read += bytes
    this.#owed += bytes
    if (this.#owed < this.#window / 4) return
    this.#channel.grant(this.#owed + this.#widen())
    this.#unread -= this.#owed
    this.#owed = 0
  }

  /** By how many bytes the window grows. */
  #widen(): number {
    const keepsUp = this.#queue.length === 0 && this.#read >= WINDOW && !this.#failure
    if (this.#window === WIDE_WINDOW || !keepsUp || wide === MAX_WIDE) return 0
    wide += 1
    this.#window = WIDE_WINDOW
    return WIDE_WINDOW - WINDOW
  }

  #fail(error: IceboxError): void {
    this.keep()
    if (!this.#failure && this.#window === WIDE_WINDOW) wide -= 1
    this.#failure ??= error
    this.#reply.reject(this.#failure)
    this.#wake?.()
  }
}
