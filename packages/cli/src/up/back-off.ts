export interface BackOffTimes {
  /** Milliseconds before the first restart; doubled with each that follows. */
  first: number
  longest: number
  /** Who ran that long begins anew. */
  healthy: number
}

export const BACK_OFF: BackOffTimes = { first: 500, longest: 60_000, healthy: 300_000 }

/** How long to wait before a server that died is started again. Told in durations, so that no clock that is set plays a part. */
export class BackOff {
  readonly #times: BackOffTimes
  #next: number

  constructor(times: BackOffTimes = BACK_OFF) {
    this.#times = times
    this.#next = times.first
  }

  /** After a run of so many milliseconds. */
  after(ranMs: number): number {
    const { first, longest, healthy } = this.#times
    if (ranMs >= healthy) this.#next = first
    const wait = this.#next
    this.#next = Math.min(longest, wait * 2)
    return wait
  }
}
