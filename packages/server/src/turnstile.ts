import { IceboxError } from '@icebox/model'

export interface Limits {
  /** Open at once for one of those who are counted apart. */
  each: number
  /** The same over all of them. */
  inAll: number
}

/** How a refusal calls what is counted: `each` of one, `inAll` of all. */
export type Words = Record<keyof Limits, string>

/** How many times the places that are left one project may have. Alone it gets four of five, and who comes next always finds some. */
const SHARE = 4
/** Seconds after which whoever was refused may try again. */
const RETRY = 1

/** Counts what is open, and refuses what would be too much: of one of those who are counted apart, of one project, or in all. */
export class Turnstile {
  readonly #limits: Limits
  readonly #words: Words
  readonly #open = new Map<string, number>()
  readonly #projects = new Map<string, number>()
  #all = 0

  constructor(limits: Limits, words: Words) {
    this.#limits = limits
    this.#words = words
  }

  /** Gives what is called once it is over. Throws `TooManyRequests`, or `Unavailable` when the server as a whole is full. */
  enter(name: string, project: string): () => void {
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
    const ofProject = this.#projects.get(project) ?? 0
    if (ofProject >= SHARE * (inAll - this.#all))
      throw new IceboxError(
        'TooManyRequests',
        `this project has ${ofProject} of ${inAll} ${this.#words.inAll} open: what is left is for others`,
        { details },
      )
    change(this.#open, name, 1)
    change(this.#projects, project, 1)
    this.#all++
    let left = false
    return () => {
      if (left) return
      left = true
      this.#all--
      change(this.#open, name, -1)
      change(this.#projects, project, -1)
    }
  }
}

function change(counts: Map<string, number>, name: string, by: number): void {
  const count = (counts.get(name) ?? 0) + by
  if (count === 0) counts.delete(name)
  else counts.set(name, count)
}
