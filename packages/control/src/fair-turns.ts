/**
 * Lets at most `limit` pieces of work run at once. Projects take turns, and within one whoever came first: one that asks for much
 * waits for itself.
 */
export class FairTurns {
  readonly #limit: number
  #running = 0
  /** Those that wait, by project; the project whose turn is next comes first. */
  readonly #waiting = new Map<string, Set<() => void>>()

  constructor(limit: number) {
    this.#limit = limit
  }

  /** Throws the signal's reason when it aborts before the turn has come. */
  async run<R>(project: string, work: () => Promise<R>, signal: AbortSignal): Promise<R> {
    await this.#turn(project, signal)
    try {
      return await work()
    } finally {
      this.#running -= 1
      this.#next()
    }
  }

  #turn(project: string, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const start = () => {
      signal.removeEventListener('abort', abandon)
      resolve()
    }
    const abandon = () => {
      this.#leave(project, start)
      reject(signal.reason)
    }
    signal.addEventListener('abort', abandon, { once: true })
    const line = this.#waiting.get(project) ?? new Set()
    this.#waiting.set(project, line.add(start))
    this.#next()
    return promise
  }

  #leave(project: string, start: () => void): void {
    const line = this.#waiting.get(project)
    line?.delete(start)
    if (line?.size === 0) this.#waiting.delete(project)
  }

  #next(): void {
    while (this.#running < this.#limit) {
      const [first] = this.#waiting
      if (first === undefined) return
      const [project, line] = first
      const [start] = line
      // To the end of those that wait.
      this.#waiting.delete(project)
      if (start === undefined) continue
      line.delete(start)
      if (line.size > 0) this.#waiting.set(project, line)
      this.#running += 1
      start()
    }
  }
}
