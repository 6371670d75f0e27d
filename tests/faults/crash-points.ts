/** Ends this process, as a power cut would, at one chosen step of the work that is under way. */
export class CrashPoint {
  readonly #at: number
  #armed = false
  #steps = 0

  /** `at`: the number of the step to die at, from 1. */
  constructor(at: number) {
    this.#at = at
  }

  /** Steps are counted from now on. */
  arm(): void {
    this.#armed = true
  }

  get steps(): number {
    return this.#steps
  }

  #step(name: string): void {
    if (!this.#armed) return
    this.#steps += 1
    if (this.#steps !== this.#at) return
    process.stderr.write(`killed at step ${this.#at}: ${name}\n`)
    process.kill(process.pid, 'SIGKILL')
  }

  /**
   * The same object, with a step before and one after each call of the named methods. What a method resolves to goes through
   * `wrapResult`.
   */
  watch<T extends object>(
    target: T,
    name: string,
    methods: readonly (keyof T & string)[],
    wrapResult: (method: string, result: unknown) => unknown = (_, result) => result,
  ): T {
    return new Proxy(target, {
      get: (object, property) => {
        // Private fields live on the object itself, not on the proxy.
        const value: unknown = Reflect.get(object, property, object)
        if (typeof value !== 'function') return value
        const call = (...args: unknown[]): unknown => Reflect.apply(value, object, args)
        if (typeof property !== 'string' || !methods.some((method) => method === property)) return call
        return async (...args: unknown[]) => {
          this.#step(`before ${name}.${property}`)
          const result = await call(...args)
          this.#step(`after ${name}.${property}`)
          return wrapResult(property, result)
        }
      },
    })
  }
}
