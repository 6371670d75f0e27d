/** Of the values measured: the middle, the value that 5 % exceed, and how many there were. */
export interface Figures {
  p50: number
  p95: number
  n: number
}

export interface Result {
  /** The scenario's name, and what is special about this row. */
  name: string
  unit: 'ms' | 'MiB'
  ours: Figures
  floor: Figures
  /** Of the medians. */
  ratio: number
  /** What must be reached, for people. */
  bound: string
  ok: boolean
  notes: string[]
}

function quantile(sorted: readonly number[], q: number): number {
  const at = q * (sorted.length - 1)
  const low = sorted[Math.floor(at)] ?? Number.NaN
  const high = sorted[Math.ceil(at)] ?? Number.NaN
  return low + (high - low) * (at - Math.floor(at))
}

export function figures(values: readonly number[]): Figures {
  if (values.length === 0) throw new Error('nothing was measured')
  const sorted = [...values].sort((a, b) => a - b)
  return { p50: quantile(sorted, 0.5), p95: quantile(sorted, 0.95), n: sorted.length }
}

/** What a result must reach. */
export interface Bound {
  text: string
  holds: (ours: Figures, floor: Figures) => boolean
}

export const REPORTED: Bound = { text: 'reported', holds: () => true }
/** p50 at most so many times the floor's. */
export const atMost = (factor: number): Bound => ({
  text: `≤ ${factor} × floor`,
  holds: (ours, floor) => ours.p50 <= factor * floor.p50,
})

export function result(
  name: string,
  unit: Result['unit'],
  values: { ours: readonly number[]; floor: readonly number[] },
  bound: Bound,
  notes: string[] = [],
): Result {
  const ours = figures(values.ours)
  const floor = figures(values.floor)
  return {
    ...{ name, unit, ours, floor },
    ratio: ours.p50 / floor.p50,
    bound: bound.text,
    ok: bound.holds(ours, floor),
    notes,
  }
}

/** Milliseconds. */
export async function timed(work: () => Promise<unknown>): Promise<number> {
  const started = performance.now()
  await work()
  return performance.now() - started
}

/**
 * Measures each contestant once a round, in turn, so that whatever else the machine does meets all alike. Each gives the
 * values of its turn. A first round warms up and is not counted.
 */
export async function interleave<Name extends string>(
  rounds: number,
  contestants: Record<Name, () => Promise<number[]>>,
  signal: AbortSignal,
): Promise<Record<Name, number[]>> {
  const names = Object.keys(contestants) as Name[]
  const values = Object.fromEntries(names.map((name) => [name, [] as number[]])) as Record<Name, number[]>
  for (let round = -1; round < rounds; round += 1)
    for (const name of names) {
      signal.throwIfAborted()
      const measured = await contestants[name]()
      if (round >= 0) values[name].push(...measured)
    }
  return values
}
