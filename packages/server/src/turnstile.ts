import { IceboxError } from '@icebox/model'

export interface Limits {
  /** Open at once for one of those who are counted apart. */
  each: number
  /** The same over all of them. */
  inAll: number
}

/** How a refusal calls what is counted: `each` of one, `inAll` of all. */
export type Words = Record<keyof Limits, string>

/** Seconds after which whoever was refused may try again. */
const RETRY = 1

/** Counts what is open, and refuses what would be too much. */
export class Turnstile {
  readonly #limits: Limits
  readonly #words: Words
  readonly #open = new Map<string, number>()
  #all = 0

  constructor(limits: Limits, words: Words) {
    this.#limits = limits
    this.#words = words
  }

  /** Gives what is called once it is over. Throws `TooManyRequests`, or `Unavailable` when the server as a whole is full. */
  enter(name: string): () => void {
    const { each, inAll } = this.#limits
    const open = this.#open.get(name) ?? 0
    const details = { retryAfterSeconds: RETRY }
    if (this.#all >= inAll)
      throw new IceboxError('Unavailable', `${inAll} ${this.#words.inAll} are open, more than this server takes`, {
        remedy: 'Try again in a moment.',
        details,
      })
    if (open >= each)
      throw new IceboxError('TooManyRequests', `${each} ${this.#words.each} are open: that is the most`, { details })
    this.#open.set(name, open + 1)
    this.#all++
    let left = false
    return () => {
      if (left) return
      left = true
      this.#all--
      const rest = (this.#open.get(name) ?? 1) - 1
      if (rest === 0) this.#open.delete(name)
      else this.#open.set(name, rest)
    }
  }
}
