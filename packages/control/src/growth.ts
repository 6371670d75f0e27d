/** How the disks of running machines grow, and what is to be done before they fill the disk of the host. Pure, but for the samples. */

/** So long the disk must last at the present pace beside the save of the one that grows fastest, or that is paused. */
const PAUSE_SECONDS = 4
/** So long it must last in any case, or that is held. */
const HOLD_SECONDS = 1
/** Whoever would fill the disk later than this is left alone, whatever stopping it would take. */
const HORIZON_SECONDS = 300
/** Bytes a second that count as growth: less is what logs write. */
const LEAST_RATE = 65_536

export interface Grower {
  execution: string
  /** Bytes of its disk on the host. */
  diskBytes: number
  /** Bytes a second. */
  rate: number
  /** What a pause of it writes. */
  pauseBytes: number
}

export interface Room {
  /** Bytes without the reserve and without what is promised; less than none when the reserve is touched. */
  freeBytes: number
  reserveBytes: number
}

export type Measure =
  /** There is room for its save: with that its disk is given back. */
  | { do: 'pause'; execution: string }
  /** There is none: it stops where it is. */
  | { do: 'hold'; execution: string }

/** What to do about those that grow; undefined: nothing yet. */
export function planGrowth({ freeBytes, reserveBytes }: Room, machines: readonly Grower[]): Measure | undefined {
  const growing = machines.filter(({ rate }) => rate >= LEAST_RATE)
  const fastest = growing.toSorted((a, b) => b.rate - a.rate)[0]
  if (fastest === undefined) return undefined
  const total = growing.reduce((sum, { rate }) => sum + rate, 0)
  if (freeBytes >= total * HORIZON_SECONDS) return undefined
  const { execution, pauseBytes } = fastest
  const fits = pauseBytes <= freeBytes + reserveBytes
  // While there is just room for its save: later there is none.
  if (fits && freeBytes < pauseBytes + total * PAUSE_SECONDS) return { do: 'pause', execution }
  return freeBytes < total * HOLD_SECONDS ? { do: 'hold', execution } : undefined
}

/** Milliseconds that a pace is of. */
const WINDOW_MS = 1000

interface Size {
  at: number
  diskBytes: number
}

/**
 * Paces of machines, from the sizes of their disks at several times. Only what grows in both halves of a window has one: a restore
 * that brings in the rest of its pages, or a file that is written and done with, is no growth that goes on.
 */
export class Paces {
  readonly #known = new Map<string, Size[]>()

  /** Takes the sizes of now, milliseconds of a clock that only goes on. Gives the bytes a second of those known for a window. */
  sample(sizes: ReadonlyMap<string, number>, at: number): Map<string, number> {
    for (const execution of this.#known.keys()) if (!sizes.has(execution)) this.#known.delete(execution)
    const rates = new Map<string, number>()
    for (const [execution, diskBytes] of sizes) {
      const known = (this.#known.get(execution) ?? []).filter((size) => size.at < at)
      // The newest of those that are a window old begins it.
      const begin = Math.max(
        0,
        known.findLastIndex((size) => at - size.at >= WINDOW_MS),
      )
      const window = [...known.slice(begin), { at, diskBytes }]
      this.#known.set(execution, window)
      const [first] = window
      if (first === undefined || at - first.at < WINDOW_MS) continue
      const middle = window.find((size) => size.at - first.at >= (at - first.at) / 2 && size.at < at)
      if (middle !== undefined) rates.set(execution, Math.min(pace(first, middle), pace(middle, { at, diskBytes })))
    }
    return rates
  }

  forget(): void {
    this.#known.clear()
  }
}

const pace = (from: Size, to: Size): number => Math.max(0, ((to.diskBytes - from.diskBytes) / (to.at - from.at)) * 1000)
