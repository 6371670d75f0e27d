interface Waiting {
  start: () => void
  background: boolean
}

/**
 * Lets at most `limit` pieces of work run at once, in the order they came. Background work is begun, one piece at a time, only when
 * nothing else has run or waited for `quietMs` milliseconds: whoever was just served has more to do.
 */
export class Turns {
  readonly #limit: number
  readonly #quietMs: number
  #quietFrom = 0
  #timer: NodeJS.Timeout | undefined
  readonly #waiting: Waiting[] = []
  #running = 0
  #background = 0

  constructor(limit: number, quietMs = 0) {
    this.#limit = limit
    this.#quietMs = quietMs
  }

  /** Throws the signal's reason when it aborts before the turn has come. */
  async run<T>(work: () => Promise<T>, signal: AbortSignal, background = false): Promise<T> {
    await this.#turn(signal, background)
    try {
      return await work()
    } finally {
      this.#running--
      if (background) this.#background--
      else this.#quietFrom = performance.now() + this.#quietMs
      this.#next()
    }
  }

  #turn(signal: AbortSignal, background: boolean): Promise<void> {
    signal.throwIfAborted()
    return new Promise((resolve, reject) => {
      const abandon = () => {
        this.#waiting.splice(this.#waiting.indexOf(waiting), 1)
        reject(signal.reason)
      }
      const waiting: Waiting = {
        background,
        start: () => {
          signal.removeEventListener('abort', abandon)
          resolve()
        },
      }
      signal.addEventListener('abort', abandon, { once: true })
      this.#waiting.push(waiting)
      this.#next()
    })
  }

  #next(): void {
    for (;;) {
      let index = this.#waiting.findIndex(({ background }) => !background)
      // A background piece under way takes no turn from the others.
      if (index >= 0 && this.#running - this.#background >= this.#limit) return
      if (index < 0) {
        if (this.#waiting.length === 0 || this.#running > 0) return
        const wait = this.#quietFrom - performance.now()
        if (wait > 0) {
          this.#timer ??= setTimeout(() => {
            this.#timer = undefined
            this.#next()
          }, wait)
          return
        }
        index = 0
      }
      const [chosen] = this.#waiting.splice(index, 1)
      if (!chosen) return
      this.#running++
      if (chosen.background) this.#background++
      chosen.start()
    }
  }
}
