/** Milliseconds of work, after which everybody else has a turn. */
const STEP_MS = 2

/** Keeps long work from holding up the process, whose one thread serves everybody: to be asked between its pieces. */
export class Pace {
  readonly #stepMs: number
  #since = performance.now()

  constructor(stepMs = STEP_MS) {
    this.#stepMs = stepMs
  }

  get isDue(): boolean {
    return performance.now() - this.#since > this.#stepMs
  }

  /** Lets everybody else have a turn when one is due. */
  async turn(): Promise<void> {
    if (!this.isDue) return
    await new Promise((resolve) => setImmediate(resolve))
    this.#since = performance.now()
  }
}
