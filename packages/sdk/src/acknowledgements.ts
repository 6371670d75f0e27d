/** Bytes after which the server is told at once that they have arrived; far less than it sends ahead. */
const BYTES = 32 * 1024
/** Milliseconds after which it is told of fewer: a process may be waiting for just these to be read. */
const DELAY_MS = 5
/** Milliseconds after which what it could not be told is told again. */
const AGAIN_MS = 100

/** Tells what has arrived, at most one message at a time and none for what ends before it would be sent. */
export class Acknowledgements {
  readonly #send: () => Promise<void>
  #bytes = 0
  #sending = false
  #stopped = false
  #timer: NodeJS.Timeout | undefined

  /** `send` tells all that has arrived by then. When it fails it is called again, until `stop`: the process may wait for it. */
  constructor(send: () => Promise<void>) {
    this.#send = send
  }

  took(bytes: number): void {
    this.#bytes += bytes
    this.#next()
  }

  stop(): void {
    this.#stopped = true
    clearTimeout(this.#timer)
  }

  #next(): void {
    if (this.#stopped || this.#sending || this.#bytes === 0) return
    if (this.#bytes >= BYTES) this.#now()
    else this.#timer ??= setTimeout(() => this.#now(), DELAY_MS)
  }

  #now(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#stopped || this.#sending) return
    this.#sending = true
    const told = this.#bytes
    this.#bytes = 0
    this.#send().then(
      () => {
        this.#sending = false
        this.#next()
      },
      () => {
        this.#sending = false
        this.#bytes += told
        if (!this.#stopped) this.#timer = setTimeout(() => this.#now(), AGAIN_MS)
      },
    )
  }
}
