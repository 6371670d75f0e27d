import { asExecutionId, canExec, IceboxError, isArriving, type Sandbox, type SandboxState } from '@icebox/model'
import type { Context } from '../context.ts'
import type { Reached } from '../control.ts'

const REMEDY: Partial<Record<SandboxState, string>> = {
  paused: 'Resume it first: `icebox resume <sandbox>`.',
  failed: 'Roll it back to a snapshot (`icebox rollback <sandbox> <snapshot>`) or delete it.',
}

/** The agent of a sandbox that runs, or is on its way to; `InvalidState` of any other. */
export async function reach(context: Context, found: Sandbox): Promise<Reached> {
  const { name } = found.metadata
  let sandbox = found
  if (isArriving(sandbox.status.state)) {
    // It will run in a moment: whoever asks now means that it should.
    await context.operations.ended(name)
    sandbox = await context.records.get('Sandbox', name)
  }
  const { state, execution, message } = sandbox.status
  if (!canExec(state) || execution === undefined) {
    const remedy = REMEDY[state]
    throw new IceboxError(
      'InvalidState',
      `sandbox ${name} is ${state}, not running${message === undefined ? '' : ` (${message})`}`,
      remedy === undefined ? {} : { remedy },
    )
  }
  const run = asExecutionId(execution)
  return { sandbox, execution: run, guest: context.node.guest(run) }
}
