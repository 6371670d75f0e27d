import type { Progress } from '@icebox/model'

interface Running<T> {
  result: Promise<T>
  ending: AbortController
  listeners: Set<Progress>
}

/** Work that several callers want at the same time: done once, and given up only when none of them waits any more. */
export class SharedWork<T> {
  readonly #running = new Map<string, Running<T>>()

  /**
   * Starts the work, or joins that of the same key: all its callers see the progress.
   * Throws what the work throws, and the signal's reason when it aborts; what was given up has ended by then.
   */
  async run(
    key: string,
    work: (progress: Progress, signal: AbortSignal) => Promise<T>,
    progress: Progress,
    signal: AbortSignal,
  ): Promise<T> {
    signal.throwIfAborted()
    const shared = this.#running.get(key) ?? this.#start(key, work)
    // Of its own, so that a function given twice counts twice.
    const listener: Progress = (step) => progress(step)
    shared.listeners.add(listener)
    const { promise: aborted, reject } = Promise.withResolvers<never>()
    const abort = () => reject(signal.reason)
    signal.addEventListener('abort', abort, { once: true })
    try {
      return await Promise.race([shared.result, aborted])
    } finally {
      signal.removeEventListener('abort', abort)
      shared.listeners.delete(listener)
      if (shared.listeners.size === 0) {
        this.#forget(key, shared)
        shared.ending.abort(signal.reason)
        await shared.result.catch(() => {})
      }
    }
  }

  #start(key: string, work: (progress: Progress, signal: AbortSignal) => Promise<T>): Running<T> {
    const ending = new AbortController()
    const listeners = new Set<Progress>()
    const tell: Progress = (step) => {
      for (const listener of listeners) listener(step)
    }
    const shared = { result: work(tell, ending.signal), ending, listeners }
    this.#running.set(key, shared)
    shared.result.then(
      () => this.#forget(key, shared),
      () => this.#forget(key, shared),
    )
    return shared
  }

  #forget(key: string, shared: Running<T>): void {
    if (this.#running.get(key) === shared) this.#running.delete(key)
  }
}
