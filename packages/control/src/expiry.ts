import { IceboxError, isError, type Sandbox } from '@icebox/model'
import { Alarm } from './alarm.ts'
import type { Log } from './context.ts'
import type { Records } from './records.ts'
import { isDue, isExpiring } from './sandboxes/time.ts'

/** How long a sandbox is left alone whose end could not be carried out: each try of a pause holds it up. */
const RETRY_MS = 10_000

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
  /** Whose end is being carried out, or is to be tried again later. */
  const ending = new Set<string>()

  const end = async (sandbox: Sandbox): Promise<void> => {
    const { metadata, spec } = sandbox
    const { name, namespace: project } = metadata
    const facts = { sandbox: name, project, expiresAt: spec.expiresAt, onTimeout: spec.onTimeout }
    log('info', 'sandbox.expired', facts)
    const done = () => {
      ending.delete(name)
      alarm.changed()
    }
    try {
      await expire(sandbox)
      done()
    } catch (error) {
      // Somebody was faster, with an extension, a pause or a delete: there is nothing to try again.
      if (isError(error, 'Conflict', 'NotFound')) return done()
      log('error', 'expiry.failed', { ...facts, error: IceboxError.from(error).message })
      setTimeout(done, RETRY_MS).unref()
    }
  }

  const look = async (): Promise<number | undefined> => {
    const now = Date.now()
    let nearest: number | undefined
    for (const sandbox of await records.listEverywhere('Sandbox')) {
      const { name } = sandbox.metadata
      if (ending.has(name)) continue
      if (isDue(sandbox, now)) {
        ending.add(name)
        void end(sandbox)
      } else if (isExpiring(sandbox)) {
        const time = Date.parse(sandbox.spec.expiresAt ?? '')
        nearest = Math.min(time, nearest ?? time)
      }
    }
    return nearest
  }

  const alarm = new Alarm(look, log, stopping)
  return alarm
}
