const NONE: ReadonlySet<never> = new Set()

/** Items by values of theirs. Most values are of one item, which then costs no set. */
export class Lookup<T extends object> {
  readonly #valuesOf: (item: T) => readonly (string | undefined)[]
  readonly #items = new Map<string, T | Set<T>>()

  /** An item is found by each of its values. They do not change while it is here. */
  constructor(valuesOf: (item: T) => readonly (string | undefined)[]) {
    this.#valuesOf = valuesOf
  }

  add(item: T): void {
    for (const value of this.#valuesOf(item)) {
      if (value === undefined) continue
      const found = this.#items.get(value)
      if (found === undefined) this.#items.set(value, item)
      else if (found instanceof Set) found.add(item)
      else if (found !== item) this.#items.set(value, new Set([found, item]))
    }
  }

  remove(item: T): void {
    for (const value of this.#valuesOf(item)) {
      if (value === undefined) continue
      const found = this.#items.get(value)
      if (found === item) this.#items.delete(value)
      else if (found instanceof Set && found.delete(item) && found.size === 0) this.#items.delete(value)
    }
  }

  /** In the order they came. */
  get(value: string | undefined): Iterable<T> & { readonly size: number } {
    const found = value === undefined ? undefined : this.#items.get(value)
    if (found === undefined) return NONE
    return found instanceof Set ? found : new Set([found])
  }

  /** One of them. */
  first(value: string | undefined): T | undefined {
    const found = value === undefined ? undefined : this.#items.get(value)
    if (!(found instanceof Set)) return found
    const [first] = found
    return first
  }
}
