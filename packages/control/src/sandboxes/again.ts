import { newExecutionId, type Sandbox } from '@icebox/model'
import type { Context } from '../context.ts'
import type { Accepted } from '../control.ts'
import { finishCreate } from './birth.ts'
import { finishRestore } from './restore.ts'

/**
 * Begins an interrupted create, resume or rollback again, as a new run. Like every operation of this folder it looks for no
 * other one under way: callers hold the sandbox. A create is given up when `stopping` aborts.
 */
export async function beginAgain(
  context: Context,
  sandbox: Sandbox,
  stopping: AbortSignal,
): Promise<Accepted<Sandbox>> {
  const resource = await context.records.setStatus('Sandbox', sandbox.metadata.name, ({ status }) =>
    status.operation === undefined
      ? undefined
      : { ...status, operation: { ...status.operation, execution: newExecutionId() } },
  )
  const settled =
    resource.status.state === 'creating' ? finishCreate(context, resource, stopping) : finishRestore(context, resource)
  return { resource, settled }
}
