import { Pace } from '@icebox/model'

/** Milliseconds of work at a time on the one thread that serves everybody. */
const SLICE = 4

/** The items that are to be kept, looked at in slices between which everything else goes on. Throws the signal's reason. */
export async function filterInSlices<T>(
  items: Iterable<T>,
  keep: (item: T) => boolean,
  signal: AbortSignal,
): Promise<T[]> {
  const kept: T[] = []
  const pace = new Pace(SLICE)
  for (const item of items) {
    if (keep(item)) kept.push(item)
    if (!pace.isDue) continue
    await pace.turn()
    signal.throwIfAborted()
  }
  return kept
}
