import { isError, isMetered, type Sandbox, type SandboxState, type Usage } from '@icebox/model'
import type { Context } from './context.ts'
import type { SandboxUsage } from './control.ts'
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
 * Keeps what a sandbox has used before it goes. One that never ran leaves nothing. May be called again after a crash.
 */
export async function recordUsage({ records }: Context, { metadata, spec, status }: Sandbox): Promise<void> {
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
}

/**
 * Of the sandboxes that existed in the period: how long they have run in their whole life so far. Seconds are not cut at the
 * ends of the period: when within its life a sandbox ran is not kept.
 */
export async function usageOf(records: Records, period: { from?: string; to?: string }): Promise<SandboxUsage[]> {
  const now = new Date().toISOString()
  const from = period.from === undefined ? Number.NEGATIVE_INFINITY : Date.parse(period.from)
  const to = period.to === undefined ? Number.POSITIVE_INFINITY : Date.parse(period.to)
  const present = (await records.list('Sandbox')).map(({ metadata, spec, status }) => ({
    sandbox: metadata.name,
    size: spec.size,
    runningSeconds: usageAfter(status.usage, 'deleting', now).runningSeconds,
    createdAt: metadata.createdAt,
  }))
  // Read later: a sandbox that goes in between is in both, and its record is what counts.
  const gone = (await records.list('UsageRecord')).map(({ metadata, spec }) => ({
    sandbox: metadata.name,
    size: spec.size,
    runningSeconds: spec.runningSeconds,
    createdAt: spec.createdAt,
    deletedAt: spec.deletedAt,
  }))
  const all = new Map<string, SandboxUsage>([...present, ...gone].map((usage) => [usage.sandbox, usage]))
  return [...all.values()]
    .filter(({ createdAt, deletedAt }) => {
      return Date.parse(createdAt) < to && (deletedAt === undefined || Date.parse(deletedAt) >= from)
    })
    .sort((a, b) =>
      a.createdAt === b.createdAt ? (a.sandbox < b.sandbox ? -1 : 1) : a.createdAt < b.createdAt ? -1 : 1,
    )
}
