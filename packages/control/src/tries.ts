/**
 * What failed and is to be tried again later, by name. Waits are of a clock that nobody sets: a jump of the wall clock shortens or
 * lengthens none.
 */
export class Tries {
  readonly #clock: () => number
  /** When each may be tried again, milliseconds of the clock. */
  readonly #next = new Map<string, number>()

  constructor(clock: () => number = () => performance.now()) {
    this.#clock = clock
  }

  mayTry(name: string): boolean {
    return (this.#next.get(name) ?? 0) <= this.#clock()
  }

  /** Leaves it alone for so many milliseconds. */
  again(name: string, milliseconds: number): void {
    this.#next.set(name, this.#clock() + milliseconds)
  }

  forget(name: string): void {
    this.#next.delete(name)
  }

  /** The earlier of the time given and of the next try, milliseconds since 1970; undefined when there is neither. */
  nearest(due: number | undefined): number | undefined {
    let nearest = due ?? Number.POSITIVE_INFINITY
    const [now, wall] = [this.#clock(), Date.now()]
    for (const next of this.#next.values()) nearest = Math.min(nearest, wall + Math.max(0, next - now))
    return nearest === Number.POSITIVE_INFINITY ? undefined : nearest
  }
}
