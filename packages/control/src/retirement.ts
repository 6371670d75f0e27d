import { IceboxError } from '@icebox/model'
import { Alarm } from './alarm.ts'
import type { SandboxSummary } from './cache/summary.ts'
import { expiredUsage } from './collect/collect.ts'
import type { Context } from './context.ts'
import { discardFailed } from './sandboxes/delete.ts'
import { Tries } from './tries.ts'

const DAY_MS = 86_400_000
/** How long a sandbox is kept whose create has failed, and how many of a project: the newest. They hold nothing but the reason. */
const STILLBORN_MS = DAY_MS
const STILLBORN_KEPT = 20
/** How long one is kept that failed after it had run: it may be rolled back. */
const BROKEN_MS = 30 * DAY_MS
const RETRY_MS = 60_000
/** Records that are removed at once. */
const AT_ONCE = 16

/**
 * Removes the records that nobody will remove: of sandboxes that have failed, and of what was used long ago. To be told of each sandbox
 * that fails.
 */
export function retirementAlarm(context: Context): Alarm {
  const { cache, log, stopping } = context
  const leaving = new Set<string>()
  const tries = new Tries()

  const discard = async (sandbox: SandboxSummary): Promise<void> => {
    const { name, namespace } = sandbox
    if (leaving.has(name) || leaving.size >= AT_ONCE || !tries.mayTry(name)) return
    leaving.add(name)
    try {
      await discardFailed(context.project(namespace), sandbox)
      tries.forget(name)
      log('info', 'sandbox.retired', { sandbox: name, project: namespace, failedAt: sandbox.since })
    } catch (error) {
      tries.again(name, RETRY_MS)
      log('error', 'sandbox.retire.failed', { sandbox: name, error: IceboxError.from(error).message })
    } finally {
      leaving.delete(name)
      alarm.changed()
    }
  }

  const look = async (): Promise<number | undefined> => {
    const now = Date.now()
    let nearest: number | undefined
    for (const project of cache.projectsOf('Sandbox')) {
      const failed = cache.of('Sandbox', project).by('stillborn')
      for (let at = 0; at < failed.length - STILLBORN_KEPT; at++) {
        const sandbox = failed.at(at)
        if (sandbox !== undefined) void discard(sandbox)
      }
    }
    for (const [time, kept] of [
      ['stillborn', STILLBORN_MS],
      ['broken', BROKEN_MS],
    ] as const) {
      for (const sandbox of cache.all('Sandbox').by(time)) {
        const end = Date.parse(sandbox.since) + kept
        if (end > now) {
          nearest = Math.min(end, nearest ?? end)
          break
        }
        void discard(sandbox)
      }
    }
    for (const { name, namespace } of [...expiredUsage(cache.all('UsageRecord').by('deleted'), now)].slice(0, 1000))
      await context.project(namespace).records.remove('UsageRecord', name)
    return tries.nearest(nearest)
  }

  const alarm = new Alarm(look, log, stopping)
  return alarm
}
