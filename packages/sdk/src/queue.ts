/** Between one that produces and one that consumes, with a mark beyond which the producer should hold back. */
export class Queue<T> implements AsyncIterable<T> {
  #items: { item: T; weight: number }[] = []
  #weight = 0
  #ended = false
  #failure: { thrown: unknown } | undefined
  #waiting: (() => void) | undefined
  #onRoom: (() => void) | undefined
  readonly #highWater: number

  /** @param highWater weight (such as bytes) beyond which `full` is true */
  constructor(highWater: number) {
    this.#highWater = highWater
  }

  push(item: T, weight: number): void {
    if (this.#ended) return
    this.#items.push({ item, weight })
    this.#weight += weight
    this.#wake()
  }

  /** What is queued is still given out, then the end. */
  end(): void {
    this.#ended = true
    this.#wake()
  }

  /** What is queued is still given out, then this is thrown. */
  fail(thrown: unknown): void {
    if (this.#ended) return
    this.#failure = { thrown }
    this.end()
  }

  get full(): boolean {
    return this.#weight > this.#highWater
  }

  /** Called once, as soon as it is no longer full. */
  set onRoom(listener: () => void) {
    this.#onRoom = listener
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    for (;;) {
      const next = this.#items.shift()
      if (next !== undefined) {
        this.#weight -= next.weight
        if (!this.full) {
          const room = this.#onRoom
          this.#onRoom = undefined
          room?.()
        }
        yield next.item
      } else if (this.#failure !== undefined) throw this.#failure.thrown
      else if (this.#ended) return
      else await new Promise<void>((resolve) => (this.#waiting = resolve))
    }
  }

  #wake(): void {
    this.#waiting?.()
    this.#waiting = undefined
  }
}
