/** Items in an order that none of them leaves while it is here: found, added and removed by binary search. */
export class Ordered<T> implements Iterable<T> {
  readonly #compare: (a: T, b: T) => number
  readonly #items: T[]

  /** `compare` gives 0 for an item and itself alone. */
  constructor(compare: (a: T, b: T) => number, items: Iterable<T> = []) {
    this.#compare = compare
    this.#items = [...items].sort(compare)
  }

  get length(): number {
    return this.#items.length
  }

  at(position: number): T | undefined {
    return this.#items.at(position)
  }

  add(item: T): void {
    const last = this.#items.at(-1)
    if (last === undefined || this.#compare(last, item) < 0) this.#items.push(item)
    else this.#items.splice(this.#position(item), 0, item)
  }

  /** Removing what is not here does nothing. */
  remove(item: T): void {
    const position = this.#position(item)
    const found = this.#items[position]
    if (found !== undefined && this.#compare(found, item) === 0) this.#items.splice(position, 1)
  }

  /** How many are before the first for which `isBefore` is false; it is true of none after that. */
  countWhile(isBefore: (item: T) => boolean): number {
    let [from, to] = [0, this.#items.length]
    while (from < to) {
      const middle = (from + to) >>> 1
      const found = this.#items[middle]
      if (found !== undefined && isBefore(found)) from = middle + 1
      else to = middle
    }
    return from
  }

  #position(item: T): number {
    return this.countWhile((other) => this.#compare(other, item) < 0)
  }

  [Symbol.iterator](): Iterator<T> {
    return this.#items.values()
  }
}
