import { IceboxError, isError, type Sandbox } from '@icebox/model'
import { Alarm } from './alarm.ts'
import type { Log } from './log.ts'
import type { Records } from './records.ts'
import { isDue, isExpiring } from './sandboxes/time.ts'

/**
 * How long a sandbox is left alone whose end could not be carried out, since each try of a pause holds it up: twice as long after
 * each try, up to the longest.
 */
const RETRY_MS = 10_000
const LONGEST_RETRY_MS = 300_000

/** Tries of one end that failed. */
interface Failed {
  end: string
  times: number
  /** When to try again, by a clock that nobody sets: milliseconds of `performance.now()`. */
  again: number
}

const endKey = ({ onTimeout, expiresAt }: Sandbox['spec']): string => `${onTimeout} ${expiresAt}`

/**
 * Carries out what is to happen to sandboxes when their time is over: `expire` deletes or pauses one. The time stands in the
 * resource, so that it survives a restart and an extension needs no second write.
 */
export function sandboxAlarm(
  records: Records,
  expire: (sandbox: Sandbox) => Promise<void>,
  log: Log,
  stopping: AbortSignal,
): Alarm {
  /** Whose end is being carried out. */
  const ending = new Set<string>()
  /** Whose end is to be tried again. */
  const failed = new Map<string, Failed>()
  /** Not what failed before an extension: that is another end. */
  const failuresOf = ({ metadata, spec }: Sandbox): Failed | undefined => {
    const found = failed.get(metadata.name)
    return found?.end === endKey(spec) ? found : undefined
  }

  const end = async (sandbox: Sandbox): Promise<void> => {
    const { metadata, spec } = sandbox
    const { name, namespace: project } = metadata
    const facts = { sandbox: name, project, expiresAt: spec.expiresAt, onTimeout: spec.onTimeout }
    log('info', 'sandbox.expired', facts)
    try {
      await expire(sandbox)
      failed.delete(name)
    } catch (error) {
      // Somebody was faster, with an extension, a pause or a delete: there is nothing to try again.
      if (isError(error, 'Conflict', 'NotFound')) failed.delete(name)
      else {
        const times = (failuresOf(sandbox)?.times ?? 0) + 1
        const wait = Math.min(RETRY_MS * 2 ** (times - 1), LONGEST_RETRY_MS)
        failed.set(name, { end: endKey(spec), times, again: performance.now() + wait })
        const tries = { failures: times, retryAfterSeconds: wait / 1000 }
        log('error', 'expiry.failed', { ...facts, ...tries, error: IceboxError.from(error).message })
      }
    }
    ending.delete(name)
    alarm.changed()
  }

  const look = async (): Promise<number | undefined> => {
    const now = Date.now()
    let nearest: number | undefined
    const at = (time: number) => {
      nearest = Math.min(time, nearest ?? time)
    }
    const sandboxes = await records.listEverywhere('Sandbox')
    const there = new Set(sandboxes.map(({ metadata }) => metadata.name))
    for (const name of failed.keys()) if (!there.has(name)) failed.delete(name)
    for (const sandbox of sandboxes) {
      const { name } = sandbox.metadata
      if (ending.has(name)) continue
      const wait = Math.max(0, (failuresOf(sandbox)?.again ?? 0) - performance.now())
      if (isDue(sandbox, now) && wait === 0) {
        ending.add(name)
        void end(sandbox)
      } else if (isExpiring(sandbox)) at(Math.max(Date.parse(sandbox.spec.expiresAt ?? ''), now + wait))
    }
    return nearest
  }

  const alarm = new Alarm(look, log, stopping)
  return alarm
}
