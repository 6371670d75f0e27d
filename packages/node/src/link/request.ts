import { IceboxError, ITEM_BYTES, type Reservation } from '@icebox/model'
import { ByteQueue } from './byte-queue.ts'
import { KIND, MAX_PAYLOAD } from './frame.ts'
import { aborted, type Channel, type Mux } from './mux.ts'
import { PayloadReader } from './payload.ts'

/** What a guest may take to answer what is little work for it, at the most: callers may wait less. A snapshot taken meanwhile is over sooner. */
export const ANSWER_MS = 30_000
export const unanswered = (milliseconds: number): IceboxError =>
  new IceboxError('DeadlineExceeded', `the guest has not answered within ${milliseconds / 1000} s`)

/** Bytes the guest may send ahead on a stream. */
export const WINDOW = 256 * 1024
/** The same of one whose reader has kept up so far: what waits for credit moves at half the speed. */
export const WIDE_WINDOW = 1024 * 1024
/** So many streams of this process are wide at once: a reader that then stands still holds back all that it was sent. */
export const MAX_WIDE = 64
let wide = 0

/** What else the guest is held to. */
export interface Expectations {
  /** Milliseconds for the answer; `DeadlineExceeded` beyond. Absent: as long as the signal allows. */
  answerWithin?: number
  onEvent?: (payload: PayloadReader) => void
  /** Nothing more comes, and nobody will ask for it. */
  onEnd?: () => void
}

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
  readonly #onEnd: () => void
  readonly #mux: Mux
  readonly #queue = new ByteQueue()
  /** For the answer, and for what waits in the queue. */
  readonly #heldReply: Reservation
  readonly #heldData: Reservation
  #isAnswered = false
  #late: NodeJS.Timeout | undefined
  readonly #ahead: Reservation
  #window: number
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
    { answerWithin, onEvent = () => {}, onEnd = () => {} }: Expectations = {},
  ) {
    this.#mux = mux
    this.#onEvent = onEvent
    this.#onEnd = onEnd
    if (signal.aborted) throw aborted(signal)
    // It is thrown where it is waited for, also when nobody waits any more.
    this.#reply.promise.catch(() => {})
    this.#signal = signal
    const { window, held } = mux.ahead(WINDOW)
    this.#window = window
    this.#ahead = held
    this.#heldReply = mux.hold()
    this.#heldData = mux.hold()
    this.#stop = () => this.destroy(aborted(signal))
    this.#channel = this.#open(operation, body)
    signal.addEventListener('abort', this.#stop)
    if (answerWithin !== undefined) {
      this.#late = setTimeout(() => this.destroy(unanswered(answerWithin)), answerWithin)
    }
  }

  #open(operation: number, body: Uint8Array): Channel {
    try {
      return this.#mux.open(operation, this.#window, body, {
        frame: (kind, payload) => this.#frame(kind, payload),
        failed: (error) => this.#fail(error),
      })
    } catch (error) {
      this.#ahead.release()
      throw error
    }
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
      while (await this.#something(() => !this.#queue.isEmpty)) {
        const bytes = this.#queue.shift()
        if (!bytes) continue
        this.#heldData.resize(this.#queue.cost)
        yield bytes
        this.#consumed(bytes.length)
      }
    } finally {
      this.finish()
    }
  }

  /** What the event handler puts into the queue, until the signal aborts. */
  async *events<T>(queue: { readonly length: number; shift(): T | undefined }): AsyncGenerator<T, void, void> {
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
    this.#queue.clear()
    this.#fail(reason)
  }

  #frame(kind: number, payload: PayloadReader): void {
    if (kind === KIND.event) this.#onEvent(payload)
    if (kind === KIND.reply) this.#answer(payload.rest())
    if (kind === KIND.end) this.#ended = true
    if (kind === KIND.data) {
      const bytes = payload.rest()
      this.#unread += bytes.length
      if (this.#unread > this.#window) throw new Error('more data than was granted')
      this.#queue.push(bytes)
      this.#mux.keep(this.#heldData, this.#queue.cost)
    }
    this.#wake?.()
  }

  #answer(payload: Buffer): void {
    if (this.#isAnswered) throw new Error('a second answer')
    this.#isAnswered = true
    clearTimeout(this.#late)
    // Until it is understood it is there twice.
    this.#mux.keep(this.#heldReply, 2 * payload.length + ITEM_BYTES)
    this.#reply.resolve(new PayloadReader(Buffer.from(payload)))
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
    const keepsUp = this.#queue.isEmpty && this.#read >= WINDOW && !this.#failure
    if (this.#window !== WINDOW || !keepsUp || wide === MAX_WIDE) return 0
    const more = this.#mux.ahead(WIDE_WINDOW)
    more.held.release()
    if (more.window < WIDE_WINDOW) return 0
    this.#ahead.resize(WIDE_WINDOW)
    wide += 1
    this.#window = WIDE_WINDOW
    return WIDE_WINDOW - WINDOW
  }

  #fail(error: IceboxError): void {
    this.keep()
    clearTimeout(this.#late)
    this.#ahead.release()
    this.#heldReply.release()
    // What came before may still be read; it is no more than the window, and goes with its reader.
    this.#heldData.release()
    this.#onEnd()
    if (!this.#failure && this.#window === WIDE_WINDOW) wide -= 1
    this.#failure ??= error
    this.#reply.reject(this.#failure)
    this.#wake?.()
  }
}
