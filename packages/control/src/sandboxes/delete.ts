import { asExecutionId, IceboxError, isError, newOperationId, type Sandbox } from '@icebox/model'
import { type Context, DEADLINES } from '../context.ts'
import type { Accepted } from '../control.ts'
import { settledStatus } from '../records.ts'
import { dropSnapshot } from '../snapshots/remove.ts'
import { named } from '../telemetry/telemetry.ts'
import { recordUsage } from '../usage.ts'

/** Writes the intent of a delete, unless `check` throws; `settled` is its last state. */
export async function beginDelete(
  context: Context,
  name: string,
  check: (sandbox: Sandbox) => void = () => undefined,
): Promise<Accepted<Sandbox>> {
  const resource = await context.records.setStatus('Sandbox', name, (sandbox) => {
    check(sandbox)
    const { status } = sandbox
    return {
      ...settledStatus(status),
      state: 'deleting',
      operation: {
        ...status.operation,
        id: newOperationId(),
        verb: 'delete' as const,
        startedAt: new Date().toISOString(),
      },
    }
  })
  return { resource, settled: finishDelete(context, resource) }
}

export function finishDelete(context: Context, sandbox: Sandbox): Promise<Sandbox> {
  return context.telemetry.operation('delete', named(sandbox), () => remove(context, sandbox))
}

async function remove(context: Context, sandbox: Sandbox): Promise<Sandbox> {
  const { name } = sandbox.metadata
  const { execution, operation, pausedIn } = sandbox.status
  for (const run of new Set([execution, operation?.execution])) {
    if (run !== undefined) await context.node.kill(asExecutionId(run), AbortSignal.timeout(DEADLINES.kill))
  }
  if (pausedIn !== undefined) await dropSnapshot(context, pausedIn)
  await recordUsage(context, sandbox)
  await context.records.remove('Sandbox', name)
  return sandbox
}

/** Deletes what a create or a fork has left whose failure its caller was told. What was made under the same id since then stays. */
export async function discardFailed(context: Context, { name, uid }: { name: string; uid: string }): Promise<void> {
  const begin = async () => {
    const { metadata, status } = await context.records.get('Sandbox', name)
    if (metadata.uid !== uid || status.state !== 'failed')
      throw new IceboxError('NotFound', `sandbox ${name} is another one by now`)
    return beginDelete(context, name)
  }
  try {
    await (await context.operations.exclusiveInTurn(name, 'delete', begin)).settled
  } catch (error) {
    if (!isError(error, 'NotFound')) throw error
  }
}
