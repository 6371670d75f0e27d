/**
 * Await it for the whole list, or iterate it: then its parts are asked for as they are needed. What is there throughout is in it
 * once, whatever is made or deleted meanwhile. Nothing is asked before that.
 */
export class List<T> implements PromiseLike<T[]>, AsyncIterable<T> {
  readonly #part: (after: string | undefined) => Promise<{ items: T[]; next: string | undefined }>
  #whole: Promise<T[]> | undefined

  /** @internal `part` gives what follows a token, from the beginning without one. */
  constructor(part: (after: string | undefined) => Promise<{ items: T[]; next: string | undefined }>) {
    this.#part = part
  }

  // Typed by the interface itself, so that callers may treat it as any other promise.
  readonly then: Promise<T[]>['then'] = (onResult, onError) => {
    this.#whole ??= Array.fromAsync(this)
    return this.#whole.then(onResult, onError)
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    let after: string | undefined
    do {
      const { items, next } = await this.#part(after)
      yield* items
      after = next
    } while (after !== undefined)
  }
}
