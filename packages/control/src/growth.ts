/** How the disks of running machines grow, and what is to be done before they fill the disk of the host. Pure, but for the samples. */

/** So long the disk must last at the present pace, or the one that grows fastest is stopped. */
const REACTION_SECONDS = 5
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
  const soon = total * REACTION_SECONDS
  const fits = pauseBytes <= freeBytes + reserveBytes
  // While there is just room for its save: later there is none.
  if (fits && freeBytes < pauseBytes + soon) return { do: 'pause', execution }
  return freeBytes < soon ? { do: 'hold', execution } : undefined
}

/** Paces of machines, from the sizes of their disks at several times. */
export class Paces {
  readonly #known = new Map<string, { diskBytes: number; at: number; rate: number | undefined }>()

  /** Takes the sizes of now, milliseconds of a clock that only goes on. Gives the bytes a second of those seen twice. */
  sample(sizes: ReadonlyMap<string, number>, at: number): Map<string, number> {
    for (const execution of this.#known.keys()) if (!sizes.has(execution)) this.#known.delete(execution)
    const rates = new Map<string, number>()
    for (const [execution, diskBytes] of sizes) {
      const before = this.#known.get(execution)
      const seconds = before === undefined ? 0 : (at - before.at) / 1000
      if (before === undefined || seconds <= 0) {
        this.#known.set(execution, { diskBytes, at, rate: undefined })
        continue
      }
      const present = Math.max(0, diskBytes - before.diskBytes) / seconds
      // Bursts count at once, and fade.
      const rate = Math.max(present, ((before.rate ?? present) + present) / 2)
      this.#known.set(execution, { diskBytes, at, rate })
      rates.set(execution, rate)
    }
    return rates
  }

  forget(): void {
    this.#known.clear()
  }
}
