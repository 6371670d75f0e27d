import { IceboxError } from '@icebox/model'

/** Names being given out: of two requests at the same time that want the same name, one is refused. */
export class Names {
  readonly #noun: string
  readonly #isTaken: (name: string) => boolean
  readonly #reserved = new Set<string>()

  constructor(noun: string, isTaken: (name: string) => boolean) {
    this.#noun = noun
    this.#isTaken = isTaken
  }

  /** Keeps the name for the time of `work`, which writes it down. Throws AlreadyExists. Without a name it is only the work. */
  async reserve<T>(name: string | undefined, work: () => Promise<T>): Promise<T> {
    if (name === undefined) return work()
    const taken = new IceboxError('AlreadyExists', `a ${this.#noun} named ${name} exists already`)
    if (this.#reserved.has(name) || this.#isTaken(name)) throw taken
    this.#reserved.add(name)
    try {
      return await work()
    } finally {
      this.#reserved.delete(name)
    }
  }
}
