import { IceboxError } from '@icebox/model'

export interface Limits {
  /** Requests and upgraded connections open at once to one sandbox. */
  perSandbox: number
  /** The same over all sandboxes. */
  inAll: number
}
export const LIMITS: Limits = { perSandbox: 512, inAll: 4096 }

/** Counts what is open, and refuses what would be too much. */
export class Turnstile {
  readonly #limits: Limits
  readonly #open = new Map<string, number>()
  #all = 0

  constructor(limits: Limits) {
    this.#limits = limits
  }

  /** Gives what is called once it is over. Throws `TooManyRequests`, or `Unavailable` when the server as a whole is full. */
  enter(sandbox: string): () => void {
    const { perSandbox, inAll } = this.#limits
    const open = this.#open.get(sandbox) ?? 0
    if (this.#all >= inAll)
      throw new IceboxError('Unavailable', `${inAll} connections to sandboxes are open, more than this server takes`, {
        remedy: 'Try again in a moment.',
      })
    if (open >= perSandbox)
      throw new IceboxError('TooManyRequests', `${perSandbox} connections to this sandbox are open: that is the most`)
    this.#open.set(sandbox, open + 1)
    this.#all++
    let left = false
    return () => {
      if (left) return
      left = true
      this.#all--
      const rest = (this.#open.get(sandbox) ?? 1) - 1
      if (rest === 0) this.#open.delete(sandbox)
      else this.#open.set(sandbox, rest)
    }
  }
}
