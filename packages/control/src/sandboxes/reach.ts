import { asExecutionId, canExec, IceboxError, isArriving, type Sandbox, type SandboxState } from '@icebox/model'
import type { Context } from '../context.ts'
import type { Reached } from '../control.ts'
import { arrival, resumeTogether } from './connect.ts'
import { afterWaking, keepFor } from './time.ts'

const REMEDY: Partial<Record<SandboxState, string>> = {
  paused: 'Resume it first: `icebox resume <sandbox>`.',
  failed: 'Roll it back to a snapshot (`icebox rollback <sandbox> <snapshot>`) or delete it.',
}

/**
 * The agent of a sandbox that runs, or is on its way to. One that is paused and asks for it is resumed first when `wake`
 * says that this is a use of it, and not just a look. `InvalidState` of any other.
 */
export async function reach(
  context: Context,
  found: Sandbox,
  { wake }: { wake: boolean },
  signal: AbortSignal,
): Promise<Reached> {
  const { name } = found.metadata
  for (let sandbox = found; ; sandbox = await context.records.get('Sandbox', name)) {
    const { state, execution } = sandbox.status
    if (canExec(state) && execution !== undefined) {
      const run = asExecutionId(execution)
      return { sandbox, execution: run, guest: context.node.guest(run) }
    }
    // A server that goes down must not bring back what it has just paused.
    const waiting = AbortSignal.any([signal, context.stopping])
    const awaken = wake && sandbox.spec.autoResume
    // Whoever asks for it while it comes means that it should run in a moment.
    if (awaken && isComingBack(context, sandbox) && !(await isWithoutMemory(context, sandbox))) {
      waiting.throwIfAborted()
      const seconds = afterWaking(sandbox)
      await resumeTogether(context, name, seconds, waiting)
      await keepFor(context, name, seconds)
    } else if (isArriving(state) || (awaken && state === 'pausing')) await arrival(context, name, waiting)
    else throw unreachable(sandbox)
  }
}

/** Paused, or being resumed: then with the error of that, if it fails. */
const isComingBack = (context: Context, { metadata, status: { state } }: Sandbox): boolean =>
  state === 'paused' || (state === 'resuming' && context.operations.verb(metadata.name) === 'resume')

/** Of what was paused without its memory nothing runs that could answer: only who knows that should boot it. */
async function isWithoutMemory(context: Context, { status }: Sandbox): Promise<boolean> {
  if (status.state !== 'paused' || status.pausedIn === undefined) return false
  return (await context.records.find('Snapshot', status.pausedIn))?.spec.kind === 'filesystem'
}

function unreachable({ metadata, status: { state, message } }: Sandbox): IceboxError {
  const remedy = REMEDY[state]
  return new IceboxError(
    'InvalidState',
    `sandbox ${metadata.name} is ${state}, not running${message === undefined ? '' : ` (${message})`}`,
    remedy === undefined ? {} : { remedy },
  )
}
