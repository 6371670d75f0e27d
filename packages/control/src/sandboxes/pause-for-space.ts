import type { Context } from '../context.ts'
import { beginPause, pauseVerb } from './pause.ts'
import { PAUSED_FOR_SPACE, SPACE_MESSAGE } from './time.ts'

/** Pauses a sandbox whose disk is about to fill the host's. Throws `Conflict` while something else changes it. */
export async function pauseForSpace(context: Context, name: string): Promise<void> {
  const begin = () => beginPause(context, name, { kind: 'memory', reason: PAUSED_FOR_SPACE })
  await (await context.operations.exclusive(name, pauseVerb('memory'), begin)).settled
}

/** Says of one that runs why it stands still. */
export async function tellHeld(context: Context, name: string): Promise<void> {
  await context.records.setStatus('Sandbox', name, ({ status }) =>
    status.state === 'running' ? { ...status, reason: PAUSED_FOR_SPACE, message: SPACE_MESSAGE } : undefined,
  )
  const text = `stands still (${PAUSED_FOR_SPACE}: ${SPACE_MESSAGE})`
  context.logs.append(name, { source: 'lifecycle', text })
}
