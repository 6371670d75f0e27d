import {
  asExecutionId,
  canResume,
  canRollback,
  type ExecutionId,
  IceboxError,
  newExecutionId,
  newOperationId,
  type Sandbox,
  type Snapshot,
} from '@icebox/model'
import type { Context } from '../context.ts'
import type { Accepted } from '../control.ts'
import { settledStatus } from '../records.ts'
import { type Noted, named } from '../telemetry/telemetry.ts'
import { refuse } from './refuse.ts'
import { endRun, restoreRun, startEntrypoint } from './run.ts'
import { PAUSED_BY_SHUTDOWN, startTime } from './time.ts'

const now = () => new Date().toISOString()

/**
 * Writes the intent of a resume; on failure the sandbox stays paused with its snapshot. One that runs already stays as it is.
 * `time`: it lives for these seconds from now, undefined: for those it was given first; without it its end stays.
 */
export async function beginResume(
  context: Context,
  name: string,
  time?: { seconds: number | null | undefined },
): Promise<Accepted<Sandbox>> {
  if (time !== undefined) await startTime(context, name, time.seconds)
  const resource = await context.records.setStatus('Sandbox', name, (sandbox) => {
    const { status } = sandbox
    if (status.state === 'running') return undefined
    if (!(canResume(status.state) || status.state === 'resuming') || status.pausedIn === undefined)
      refuse(sandbox, 'resume')
    return {
      ...settledStatus(status),
      state: 'resuming',
      operation: {
        id: newOperationId(),
        verb: 'resume' as const,
        startedAt: now(),
        snapshot: status.pausedIn,
        execution: newExecutionId(),
        ...keptReason(status),
      },
    }
  })
  context.expiry.at(resource.spec.expiresAt)
  return {
    resource,
    settled: resource.status.state === 'running' ? Promise.resolve(resource) : finishRestore(context, resource),
  }
}

/** What the server paused because it went down stays so until it runs: its time goes on, and the next start tries again. */
function keptReason({ state, reason, operation }: Sandbox['status']): { reason?: string } {
  const kept = state === 'resuming' ? operation?.reason : reason
  return kept === PAUSED_BY_SHUTDOWN ? { reason: kept } : {}
}

/** Begins a resume when its turn has come, or joins the one under way. */
export const resumeInTurn = (
  context: Context,
  name: string,
  time: { seconds: number | null | undefined },
): Promise<Accepted<Sandbox>> =>
  context.operations.exclusive(name, 'resume', () =>
    context.admission.start(context.records.namespace, name, () => beginResume(context, name, time)),
  )

/** Whether the snapshot is one of the sandbox's own line: taken of it, or an ancestor of what it was made from. */
async function isOfLine(context: Context, sandbox: Sandbox, snapshot: Snapshot): Promise<boolean> {
  if (snapshot.spec.sandbox === sandbox.metadata.name) return true
  const seen = new Set<string>()
  let id = sandbox.status.lastSnapshot
  while (id !== undefined && !seen.has(id)) {
    if (id === snapshot.metadata.name) return true
    seen.add(id)
    id = (await context.records.find('Snapshot', id))?.spec.parent
  }
  return false
}

/** Writes the intent of a rollback. The present run ends only when the earlier one is back; on failure all is as it was. */
export async function beginRollback(context: Context, name: string, snapshotId: string): Promise<Accepted<Sandbox>> {
  const snapshot = await context.records.get('Snapshot', snapshotId)
  if (snapshot.status.state !== 'ready') {
    throw new IceboxError('InvalidState', `snapshot ${snapshotId} is ${snapshot.status.state}, not ready`)
  }
  const sandbox = await context.records.get('Sandbox', name)
  if (!(await isOfLine(context, sandbox, snapshot))) {
    throw new IceboxError('InvalidArgument', `snapshot ${snapshotId} is not of the line of sandbox ${name}`, {
      remedy:
        'Roll back to a snapshot of this sandbox or of what it was made from (`icebox snapshot tree`), or create a new sandbox from it.',
    })
  }
  // A sandbox that did not run begins to: so does its time.
  await startTime(context, name)
  const resource = await context.records.setStatus('Sandbox', name, (present) => {
    if (!canRollback(present.status.state)) refuse(present, 'roll back')
    return {
      ...settledStatus(present.status),
      state: 'resuming',
      operation: {
        id: newOperationId(),
        verb: 'rollback' as const,
        startedAt: now(),
        snapshot: snapshotId,
        execution: newExecutionId(),
        from: present.status.state,
        ...keptReason(present.status),
      },
    }
  })
  context.expiry.at(resource.spec.expiresAt)
  return { resource, settled: finishRestore(context, resource) }
}

export async function finishRestore(context: Context, sandbox: Sandbox): Promise<Sandbox> {
  const operation = sandbox.status.operation?.verb === 'rollback' ? 'rollback' : 'resume'
  return context.telemetry.operation(operation, named(sandbox), (note) => restore(context, sandbox, note))
}

async function restore(context: Context, sandbox: Sandbox, note: (facts: Noted) => void): Promise<Sandbox> {
  const { name } = sandbox.metadata
  const { operation, execution: previous } = sandbox.status
  if (operation?.snapshot === undefined || operation.execution === undefined)
    throw new IceboxError('Internal', `sandbox ${name} resumes without a snapshot`)
  const execution = asExecutionId(operation.execution)
  const { verb, snapshot: snapshotId } = operation
  try {
    const snapshot = await context.records.get('Snapshot', snapshotId)
    // The pause was answered before its machine was gone, and there may not be memory for both.
    if (verb === 'resume' && previous !== undefined) await endRun(context, previous)
    note({ execution, snapshot: snapshotId })
    const run = await restoreRun(context, sandbox, execution, snapshot)
    note({ phases: run.phases })
    if (snapshot.spec.kind === 'filesystem') await bootEntrypoint(context, sandbox, execution)
    const running = await context.records
      .setStatus('Sandbox', name, ({ status }) => ({
        ...settledStatus(status),
        state: 'running',
        execution,
        imageName: snapshot.spec.imageName,
        restoreMs: run.milliseconds,
        // A pause belongs to the sandbox and is replaced: it is no point of its line.
        ...(snapshot.spec.purpose === 'pause' ? {} : { lastSnapshot: snapshotId }),
      }))
      .catch(async (error) => {
        await endRun(context, execution)
        throw error
      })
    await context.exits.check(running)
    if (verb === 'rollback' && previous !== undefined) await endRun(context, previous)
    return running
  } catch (error) {
    const failure = IceboxError.from(error)
    // The server ends before it was done: the intent stays, and the next start begins it again.
    if (context.closing.aborted) throw failure
    const paused = verb === 'resume' || operation.from === 'paused'
    // The machine of a paused sandbox may still be there, on its way out.
    const alive = !paused && context.node.machines().some((machine) => machine.execution === previous)
    await context.records.setStatus('Sandbox', name, ({ status }) => {
      if (status.state !== 'resuming') return undefined
      if (alive) return { ...settledStatus(status), state: 'running' }
      const reason = operation.reason ?? (verb === 'resume' ? 'ResumeFailed' : 'RollbackFailed')
      return { ...settledStatus(status), state: paused ? 'paused' : 'failed', reason, message: failure.message }
    })
    throw failure
  }
}

/** What was booted begins like a computer that is switched on. A program that is gone by now does not keep it from coming back. */
async function bootEntrypoint(context: Context, sandbox: Sandbox, execution: ExecutionId): Promise<void> {
  await startEntrypoint(context, sandbox, execution).catch((error) =>
    context.log('warn', 'sandbox.entrypoint.failed', {
      sandbox: sandbox.metadata.name,
      error: IceboxError.from(error).message,
    }),
  )
}
