import { IceboxError } from '@icebox/model'
import type { Limits } from './limits.ts'

/** The right to begin a machine. Ending it again does nothing. */
export interface Turn {
  end(): void
  /** Gives the turn up for the time of the work, which begins no machine, and waits for another one after it. */
  aside<R>(work: () => Promise<R>): Promise<R>
}

interface Waiting {
  start: () => void
  refuse: (error: IceboxError) => void
  timer?: NodeJS.Timeout
}

/** Starts of machines that are under way, so many at once, and those that wait for their turn, in the order they came. */
export class Starts {
  readonly #limits: Pick<Limits, 'starts' | 'queue' | 'queueSeconds'>
  #running = 0
  readonly #waiting = new Set<Waiting>()

  constructor(limits: Pick<Limits, 'starts' | 'queue' | 'queueSeconds'>, stopping: AbortSignal) {
    this.#limits = limits
    stopping.addEventListener('abort', () => {
      for (const { refuse } of this.#waiting) refuse(new IceboxError('Unavailable', 'the server is shutting down'))
    })
  }

  /** Throws `TooManyRequests` when too many wait already, or when the turn has not come in time. */
  turn(): Promise<Turn> {
    const { queue, queueSeconds, starts } = this.#limits
    if (this.#running >= starts && this.#waiting.size >= queue)
      throw this.#overloaded(`${this.#waiting.size} wait to be started already, the limit`)
    return this.#turn(queueSeconds)
  }

  /** For what was admitted before: waits as long as it takes. */
  patientTurn(): Promise<Turn> {
    return this.#turn(undefined)
  }

  #turn(seconds: number | undefined): Promise<Turn> {
    if (this.#running < this.#limits.starts) return Promise.resolve(this.#begin())
    const { promise, resolve, reject } = Promise.withResolvers<Turn>()
    const waiting: Waiting = {
      start: () => {
        leave()
        resolve(this.#begin())
      },
      refuse: (error) => {
        leave()
        reject(error)
      },
    }
    const leave = () => {
      clearTimeout(waiting.timer)
      this.#waiting.delete(waiting)
    }
    if (seconds !== undefined)
      waiting.timer = setTimeout(
        () => waiting.refuse(this.#overloaded(`its turn has not come in ${seconds} s`)),
        seconds * 1000,
      )
    this.#waiting.add(waiting)
    return promise
  }

  #overloaded(why: string): IceboxError {
    return new IceboxError('TooManyRequests', `too much is being started at once: ${why}`, {
      details: { retryAfterSeconds: Math.max(1, Math.ceil(this.#limits.queueSeconds)) },
    })
  }

  #begin(): Turn {
    this.#running += 1
    let release: (() => void) | undefined = () => {
      this.#running -= 1
      const [next] = this.#waiting
      next?.start()
    }
    const end = () => {
      release?.()
      release = undefined
    }
    return {
      end,
      aside: async (work) => {
        end()
        const result = await work()
        const another = await this.patientTurn()
        release = another.end
        return result
      },
    }
  }
}
