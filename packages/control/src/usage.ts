import { isError, isMetered, type Sandbox, type SandboxState, type Usage } from '@icebox/model'
import { Ordered } from './cache/ordered.ts'
import type { SandboxSummary, UsageRecordSummary } from './cache/summary.ts'
import type { Context } from './context.ts'
import type { SandboxUsage } from './control.ts'
import { oldestFirst, type PageRequest, type Slice, slice } from './page.ts'
import type { Records } from './records.ts'

const seconds = (from: number, to: number): number => Math.max(0, to - from) / 1000

/** What a sandbox has used once it changes its state at `at`, ISO 8601. */
export function usageAfter(usage: Usage, state: SandboxState, at: string): Usage {
  const { runningSeconds, runningSince } = usage
  if (isMetered(state)) return runningSince === undefined ? { runningSeconds, runningSince: at } : usage
  if (runningSince === undefined) return usage
  return { runningSeconds: runningSeconds + seconds(Date.parse(runningSince), Date.parse(at)) }
}

/**
 * Keeps what a sandbox has used before it goes. One that never ran leaves nothing. Of more than a project may have, the oldest goes.
 * May be called again after a crash.
 */
export async function recordUsage({ admission, records }: Context, { metadata, spec, status }: Sandbox): Promise<void> {
  const deletedAt = new Date().toISOString()
  const { runningSeconds } = usageAfter(status.usage, 'deleting', deletedAt)
  if (runningSeconds === 0) return
  await records
    .create('UsageRecord', metadata.name, {
      spec: {
        size: spec.size,
        runningSeconds,
        createdAt: metadata.createdAt,
        deletedAt,
      },
      status: { state: 'ready', lastTransitionAt: deletedAt },
    })
    .catch((error) => {
      if (!isError(error, 'AlreadyExists')) throw error
    })
  const kept = records.of('UsageRecord')
  while (kept.size > admission.limits.records) {
    const oldest = kept.by('deleted').at(0)
    if (oldest === undefined) return
    await records.remove('UsageRecord', oldest.name)
  }
}

/**
 * Of the sandboxes that existed in the period: how long they have run in their whole life so far. Seconds are not cut at the
 * ends of the period: when within its life a sandbox ran is not kept.
 */
export function usageOf(
  records: Records,
  period: { from?: string; to?: string },
  page: PageRequest,
): Slice<SandboxUsage> {
  const from = period.from === undefined ? Number.NEGATIVE_INFINITY : Date.parse(period.from)
  const to = period.to === undefined ? Number.POSITIVE_INFINITY : Date.parse(period.to)
  const present = records.of('Sandbox')
  const gone = records.of('UsageRecord')
  // A sandbox that is going is in both for a moment, and its record is what counts.
  const all: (SandboxSummary | UsageRecordSummary)[] = [...gone.by('created')]
  for (const sandbox of present.by('created')) if (gone.first('name', sandbox.name) === undefined) all.push(sandbox)
  const existed = all.filter(
    (usage) => Date.parse(usage.createdAt) < to && (usage.kind === 'Sandbox' || Date.parse(usage.deletedAt) >= from),
  )
  const { items, ...part } = slice(new Ordered(oldestFirst, existed), page)
  return { ...part, items: items.map(usageFrom) }
}

function usageFrom(usage: SandboxSummary | UsageRecordSummary): SandboxUsage {
  const { name: sandbox, size, createdAt, runningSeconds } = usage
  if (usage.kind === 'UsageRecord') return { sandbox, size, runningSeconds, createdAt, deletedAt: usage.deletedAt }
  const now = new Date().toISOString()
  return { sandbox, size, runningSeconds: usageAfter(usage, 'deleting', now).runningSeconds, createdAt }
}
