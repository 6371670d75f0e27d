import { deadlineExceeded } from './error.ts'

export interface CallOptions {
  /** Ends the wait; the call then rejects with the signal's reason. What the server has begun goes on. */
  signal?: AbortSignal | undefined
  /** Milliseconds to wait for the answer (of a stream: for its begin); then `DeadlineExceeded`. Default: no limit. */
  requestTimeoutMs?: number | undefined
}

/** The limits of one call: the caller's signal and its time. */
export class Deadline {
  /** Undefined when the call has no limits, which is what the fast path has. */
  readonly signal: AbortSignal | undefined
  readonly #call: CallOptions
  readonly #time: AbortController | undefined
  readonly #timer: NodeJS.Timeout | undefined

  constructor(call: CallOptions) {
    this.#call = call
    if (call.requestTimeoutMs !== undefined) {
      const time = new AbortController()
      this.#time = time
      this.#timer = setTimeout(() => time.abort(), call.requestTimeoutMs)
    }
    this.signal =
      this.#time !== undefined && call.signal !== undefined
        ? AbortSignal.any([call.signal, this.#time.signal])
        : (call.signal ?? this.#time?.signal)
  }

  /** Throws when the caller gave up or the time is over. */
  check(): void {
    this.#call.signal?.throwIfAborted()
    if (this.#time?.signal.aborted === true)
      throw deadlineExceeded(`the server did not answer within ${this.#call.requestTimeoutMs} ms`)
  }

  /** The time counts no longer; the signal does. */
  met(): void {
    clearTimeout(this.#timer)
  }
}
