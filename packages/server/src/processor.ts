import { setTimeout as sleep } from 'node:timers/promises'
import type { Guest, GuestMetrics } from '@icebox/model'

/** What a guest says of itself, and when it said it: milliseconds of this process' clock. */
export interface Sample {
  at: number
  metrics: GuestMetrics
}

export async function sample(guest: Guest, signal: AbortSignal): Promise<Sample> {
  const metrics = await guest.metrics(signal)
  return { at: performance.now(), metrics }
}

/** Two of them, so many milliseconds apart. */
export async function samples(guest: Guest, milliseconds: number, signal: AbortSignal): Promise<[Sample, Sample]> {
  const first = await sample(guest, signal)
  await sleep(milliseconds, undefined, { signal })
  return [first, await sample(guest, signal)]
}

/** How much the processors did between two samples, in percent of all cores, to two digits. */
export function usedPercent({ at: from, metrics: earlier }: Sample, { at, metrics }: Sample): number {
  const used = (metrics.cpuSeconds - earlier.cpuSeconds) / (((at - from) / 1000) * metrics.cpuCount)
  return Math.round(Math.min(1, Math.max(0, used)) * 10_000) / 100
}
