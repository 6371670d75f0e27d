import { setTimeout as sleep } from 'node:timers/promises'
import { IceboxError, type Sandbox } from '@icebox/model'
import type { Context } from '../context.ts'
import type { Connected } from '../control.ts'
import { until } from '../until.ts'
import { refuse } from './refuse.ts'
import { resumeInTurn } from './restore.ts'
import { keepFor } from './time.ts'

/** How often a sandbox is looked at that nobody is at work on and that the reconciler will settle, milliseconds. */
const LOOK_MS = 100

/** Waits until what is under way for a sandbox has ended, well or not. */
export async function arrival(context: Context, name: string, signal: AbortSignal): Promise<void> {
  if (context.operations.verb(name) === undefined) await sleep(LOOK_MS, undefined, { signal })
  else await context.operations.ended(name, signal)
}

/**
 * Resumes a paused sandbox to live for these seconds (undefined: those that it was given first), or joins who resumes it
 * already: a failure is that of all of them. Waits only, when something else is under way.
 */
export async function resumeTogether(
  context: Context,
  name: string,
  seconds: number | null | undefined,
  signal: AbortSignal,
): Promise<void> {
  const verb = context.operations.verb(name)
  if (verb !== undefined && verb !== 'resume') return arrival(context, name, signal)
  const settled = resumeInTurn(context, name, { seconds }).then((accepted) => accepted.settled)
  settled.catch(() => undefined)
  await until(settled, signal)
}

/** Resolves once the sandbox runs; resumes it when it is paused. */
export async function connect(
  context: Context,
  name: string,
  seconds: number | null | undefined,
  given: AbortSignal,
): Promise<Connected> {
  const signal = AbortSignal.any([given, context.stopping])
  let resumed = false
  for (;;) {
    signal.throwIfAborted()
    const sandbox: Sandbox = await context.records.get('Sandbox', name)
    const { state } = sandbox.status
    switch (state) {
      case 'running': {
        const kept = await keepFor(context, name, seconds)
        if (kept.status.state === 'running') return { sandbox: kept, resumed }
        break
      }
      case 'paused':
        resumed = true
        await resumeTogether(context, name, seconds, signal)
        break
      case 'resuming':
        resumed = true
        if (context.operations.verb(name) === 'resume') await resumeTogether(context, name, seconds, signal)
        else await arrival(context, name, signal)
        break
      case 'creating':
      case 'pausing':
        await arrival(context, name, signal)
        break
      case 'deleting':
        throw new IceboxError('Conflict', `cannot connect to ${name}: it is being deleted`)
      case 'failed':
        refuse(sandbox, 'resume')
        break
      default:
        state satisfies never
    }
  }
}
