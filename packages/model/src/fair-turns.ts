import { IceboxError } from './errors.ts'

/** What is left out has no bound. */
export interface FairLimits {
  /** Pieces of work of one owner at once, and of all of them. */
  each?: number
  inAll?: number
  /** The same of those that wait. */
  eachWaiting?: number
  inAllWaiting?: number
}

const UNBOUNDED: Required<FairLimits> = {
  each: Number.POSITIVE_INFINITY,
  inAll: Number.POSITIVE_INFINITY,
  eachWaiting: Number.POSITIVE_INFINITY,
  inAllWaiting: Number.POSITIVE_INFINITY,
}

/**
 * Lets at most so much work run at once. A place that becomes free goes to the owners in turn: how much one of them asks for makes
 * no other wait longer than for the work that runs.
 */
export class FairTurns {
  readonly #what: string
  readonly #limits: Required<FairLimits>
  readonly #running = new Map<string, number>()
  /** By owner; the owner whose turn is next comes first. */
  readonly #waiting = new Map<string, (() => void)[]>()
  #inAll = 0
  #inAllWaiting = 0

  /** `what` names the work in refusals. */
  constructor(what: string, limits: FairLimits) {
    this.#what = what
    this.#limits = { ...UNBOUNDED, ...limits }
  }

  /** Throws `TooManyRequests` when too many wait already, and the signal's reason when it aborts before the turn has come. */
  async run<T>(owner: string, work: () => Promise<T>, signal: AbortSignal): Promise<T> {
    await this.#turn(owner, signal)
    try {
      return await work()
    } finally {
      this.#inAll--
      const rest = (this.#running.get(owner) ?? 1) - 1
      if (rest === 0) this.#running.delete(owner)
      else this.#running.set(owner, rest)
      this.#next()
    }
  }

  async #turn(owner: string, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    if (!this.#waiting.has(owner) && this.#isFree(owner)) {
      this.#begin(owner)
      return
    }
    const { eachWaiting, inAllWaiting } = this.#limits
    const queue = this.#waiting.get(owner) ?? []
    if (queue.length >= eachWaiting || this.#inAllWaiting >= inAllWaiting)
      throw new IceboxError('TooManyRequests', `too many ${this.#what} wait for their turn`, {
        remedy: 'Wait until some of them have ended.',
      })
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const leave = () => {
      this.#remove(owner, resolve)
      reject(signal.reason)
    }
    queue.push(resolve)
    this.#waiting.set(owner, queue)
    this.#inAllWaiting++
    signal.addEventListener('abort', leave, { once: true })
    try {
      await promise
    } finally {
      signal.removeEventListener('abort', leave)
    }
  }

  #isFree(owner: string): boolean {
    return this.#inAll < this.#limits.inAll && (this.#running.get(owner) ?? 0) < this.#limits.each
  }

  #begin(owner: string): void {
    this.#inAll++
    this.#running.set(owner, (this.#running.get(owner) ?? 0) + 1)
  }

  #remove(owner: string, waiting: () => void): void {
    const queue = this.#waiting.get(owner) ?? []
    const at = queue.indexOf(waiting)
    if (at < 0) return
    queue.splice(at, 1)
    this.#inAllWaiting--
    if (queue.length === 0) this.#waiting.delete(owner)
  }

  #next(): void {
    for (const [owner, queue] of this.#waiting) {
      const [first] = queue
      if (first === undefined || !this.#isFree(owner)) continue
      this.#remove(owner, first)
      // To the end of the round.
      if (this.#waiting.delete(owner)) this.#waiting.set(owner, queue)
      this.#begin(owner)
      first()
      return
    }
  }
}
