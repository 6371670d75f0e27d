import { setImmediate as nextTurn } from 'node:timers/promises'

/** Milliseconds of work at a time on the one thread that serves everybody. */
const SLICE = 4

/** The items that are to be kept, looked at in slices between which everything else goes on. Throws the signal's reason. */
export async function filterInSlices<T>(
  items: Iterable<T>,
  keep: (item: T) => boolean,
  signal: AbortSignal,
): Promise<T[]> {
  const kept: T[] = []
  let begun = performance.now()
  for (const item of items) {
    if (keep(item)) kept.push(item)
    if (performance.now() - begun < SLICE) continue
    await nextTurn()
    signal.throwIfAborted()
    begun = performance.now()
  }
  return kept
}
