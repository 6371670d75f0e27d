import { IceboxError, isError, type Sandbox } from '@icebox/model'
import { Alarm } from './alarm.ts'
import type { Cache } from './cache/cache.ts'
import type { SandboxSummary } from './cache/summary.ts'
import type { Log } from './log.ts'
import { Tries } from './tries.ts'

/**
 * How long a sandbox is left alone whose end could not be carried out, since each try of a pause holds it up: twice as long after
 * each try, up to the longest.
 */
const RETRY_MS = 10_000
const LONGEST_RETRY_MS = 300_000
/** Ends of one project that are carried out at once. Those of others do not wait for them. */
const ENDS_AT_ONCE = 16

/**
 * Carries out what is to happen to sandboxes when their time is over: `expire` deletes or pauses one that `find` gives. The time
 * stands in the resource, so that it survives a restart and an extension needs no second write.
 */
export function sandboxAlarm(
  cache: Cache,
  find: (summary: SandboxSummary) => Promise<Sandbox | undefined>,
  expire: (sandbox: Sandbox) => Promise<void>,
  log: Log,
  stopping: AbortSignal,
  clock?: () => number,
): Alarm {
  /** Whose end is being carried out, by project. */
  const ending = new Map<string, Set<string>>()
  /** Ends that failed: which, and how often. An extension makes another end. */
  const failures = new Map<string, { due: number; times: number }>()
  const tries = new Tries(clock)
  const forget = (name: string) => {
    failures.delete(name)
    tries.forget(name)
  }

  const end = async (summary: SandboxSummary, due: number): Promise<void> => {
    const { name, namespace: project } = summary
    const sandbox = await find(summary)
    if (sandbox === undefined) return forget(name)
    const { expiresAt, onTimeout } = sandbox.spec
    const facts = { sandbox: name, project, expiresAt, onTimeout }
    log('info', 'sandbox.expired', facts)
    try {
      await expire(sandbox)
      forget(name)
    } catch (error) {
      // Somebody was faster, with an extension, a pause or a delete: there is nothing to try again.
      if (isError(error, 'Conflict', 'NotFound')) return forget(name)
      const times = (failures.get(name)?.times ?? 0) + 1
      const wait = Math.min(RETRY_MS * 2 ** (times - 1), LONGEST_RETRY_MS)
      failures.set(name, { due, times })
      tries.again(name, wait)
      const told = { failures: times, retryAfterSeconds: wait / 1000 }
      log('error', 'expiry.failed', { ...facts, ...told, error: IceboxError.from(error).message })
    }
  }

  const begin = (summary: SandboxSummary, due: number): void => {
    const { name, namespace } = summary
    const own = ending.get(namespace) ?? new Set()
    ending.set(namespace, own.add(name))
    end(summary, due)
      .catch((error) => log('error', 'expiry.failed', { sandbox: name, error: IceboxError.from(error).message }))
      .finally(() => {
        own.delete(name)
        if (own.size === 0) ending.delete(namespace)
        alarm.changed()
      })
  }

  const look = async (): Promise<number | undefined> => {
    const now = Date.now()
    const due = cache.all('Sandbox').by('due')
    for (const name of failures.keys()) {
      const failed = failures.get(name)
      if (cache.all('Sandbox').first('name', name)?.due !== failed?.due) forget(name)
    }
    const over = due.countWhile((sandbox) => (sandbox.due ?? 0) <= now)
    for (let at = 0; at < over; at++) {
      const summary = due.at(at)
      if (summary === undefined) break
      const own = ending.get(summary.namespace)
      if (own?.has(summary.name) === true || (own?.size ?? 0) >= ENDS_AT_ONCE) continue
      if (tries.mayTry(summary.name)) begin(summary, summary.due ?? now)
    }
    return tries.nearest(due.at(over)?.due)
  }

  const alarm = new Alarm(look, log, stopping)
  return alarm
}
