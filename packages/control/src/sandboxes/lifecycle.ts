import {
  asExecutionId,
  asSnapshotId,
  canPause,
  canResume,
  canRollback,
  IceboxError,
  isError,
  newExecutionId,
  newOperationId,
  newSnapshotId,
  type Sandbox,
  type Snapshot,
} from '@icebox/model'
import { type Context, DEADLINES, within } from '../context.ts'
import type { Accepted } from '../control.ts'
import type { PAUSED_BY_SHUTDOWN } from '../reconcile/plan.ts'
import { settledStatus } from '../records.ts'
import { dropSnapshot } from '../snapshots/remove.ts'
import { bareTemplate } from '../templates/bare.ts'
import { endRun, restoreRun, startEntrypoint } from './run.ts'

/**
 * The operations on one sandbox: each writes its intent, acts, and commits with one write. The reconciler begins the same
 * functions again after a crash. None of them looks for other operations under way: callers hold the sandbox.
 */

const now = () => new Date().toISOString()

function refuse(sandbox: Sandbox, verb: string): never {
  const { state, message } = sandbox.status
  throw new IceboxError(
    'InvalidState',
    `cannot ${verb} ${sandbox.metadata.name}: it is ${state}${message === undefined ? '' : ` (${message})`}`,
  )
}

/** Begins an interrupted create, resume or rollback again, as a new run. */
export async function beginAgain(context: Context, sandbox: Sandbox): Promise<Accepted<Sandbox>> {
  const resource = await context.records.setStatus('Sandbox', sandbox.metadata.name, ({ status }) =>
    status.operation === undefined
      ? undefined
      : { ...status, operation: { ...status.operation, execution: newExecutionId() } },
  )
  const settled =
    resource.status.state === 'creating' ? finishCreate(context, resource) : finishRestore(context, resource)
  return { resource, settled }
}

/** Restores the snapshot named in the intent of a sandbox that is `creating`. */
export async function finishCreate(context: Context, intent: Sandbox): Promise<Sandbox> {
  const { name } = intent.metadata
  try {
    const sandbox = intent.status.operation?.snapshot === undefined ? await findSnapshot(context, intent) : intent
    const { operation } = sandbox.status
    if (operation?.snapshot === undefined || operation.execution === undefined) {
      throw new IceboxError('Internal', `sandbox ${name} is being created without a snapshot to restore`)
    }
    const execution = asExecutionId(operation.execution)
    const snapshot = await context.records.get('Snapshot', operation.snapshot)
    const run = await restoreRun(context, sandbox, execution, snapshot)
    try {
      await startEntrypoint(context, sandbox, execution)
      const forkedFrom = sandbox.spec.source.from === 'fork' ? snapshot.spec.parent : snapshot.metadata.name
      const settled = await context.records.setStatus('Sandbox', name, ({ status }) => ({
        ...settledStatus(status),
        state: 'running',
        execution,
        imageName: snapshot.spec.imageName,
        ...(forkedFrom === undefined ? {} : { lastSnapshot: forkedFrom }),
        restoreMs: run.milliseconds,
      }))
      context.log('info', 'sandbox.created', {
        sandbox: name,
        execution,
        snapshot: snapshot.metadata.name,
        ms: run.milliseconds,
        phases: run.phases,
      })
      return settled
    } catch (error) {
      await endRun(context, execution)
      throw error
    }
  } catch (error) {
    throw await fail(context, name, 'CreateFailed', error)
  }
}

/** Of a sandbox that is made from an image: finds or makes the image's own snapshot and adds it to the intent. */
async function findSnapshot(context: Context, { metadata, spec }: Sandbox): Promise<Sandbox> {
  if (spec.source.from !== 'image')
    throw new IceboxError('Internal', `sandbox ${metadata.name} is of no snapshot and of no image`)
  const template = await bareTemplate(context, spec.source.image, spec.size, within(context, DEADLINES.pull))
  const snapshot = await context.records.get('Snapshot', template.status.snapshot ?? '')
  await context.records.setSpec('Sandbox', metadata.name, (present) => ({
    ...present.spec,
    env: { ...snapshot.spec.env, ...present.spec.env },
  }))
  return context.records.setStatus('Sandbox', metadata.name, ({ status }) =>
    status.operation === undefined
      ? undefined
      : { ...status, operation: { ...status.operation, snapshot: snapshot.metadata.name } },
  )
}

/** Writes the intent of a pause; `settled` is the sandbox paused, or the error with the sandbox running on. */
export async function beginPause(
  context: Context,
  name: string,
  reason?: typeof PAUSED_BY_SHUTDOWN,
): Promise<Accepted<Sandbox>> {
  const resource = await context.records.setStatus('Sandbox', name, (sandbox) => {
    if (!canPause(sandbox.status.state)) refuse(sandbox, 'pause')
    return {
      ...settledStatus(sandbox.status),
      state: 'pausing',
      operation: { id: newOperationId(), verb: 'pause' as const, startedAt: now(), snapshot: newSnapshotId() },
    }
  })
  return { resource, settled: finishPause(context, resource, reason) }
}

async function finishPause(context: Context, sandbox: Sandbox, reason: string | undefined): Promise<Sandbox> {
  const { name } = sandbox.metadata
  const { execution, operation } = sandbox.status
  if (execution === undefined || operation?.snapshot === undefined)
    throw new IceboxError('Internal', `sandbox ${name} pauses without a run`)
  const run = asExecutionId(execution)
  try {
    const saved = await context.node.save(
      run,
      asSnapshotId(operation.snapshot),
      {
        kind: 'memory',
        hold: true,
        env: sandbox.spec.env,
        ...(sandbox.status.lastSnapshot === undefined ? {} : { parent: asSnapshotId(sandbox.status.lastSnapshot) }),
      },
      within(context, DEADLINES.save),
    )
    context.log('info', 'sandbox.saved', {
      sandbox: name,
      execution,
      snapshot: operation.snapshot,
      phases: saved.phases,
    })
  } catch (error) {
    const failure = IceboxError.from(error)
    const alive = context.node.machines().some((machine) => machine.execution === run)
    await context.records.setStatus('Sandbox', name, ({ status }) =>
      alive
        ? { ...settledStatus(status), state: 'running' }
        : { ...settledStatus(status), state: 'failed', reason: 'PauseFailed', message: failure.message },
    )
    context.log('error', 'sandbox.pause.failed', { sandbox: name, execution, alive, error: failure.message })
    throw failure
  }
  return commitPause(context, sandbox, operation.snapshot, reason)
}

/** The snapshot is durable: writes that it holds the sandbox, ends the run, drops the snapshot of the pause before. */
export async function commitPause(
  context: Context,
  sandbox: Sandbox,
  snapshot: string,
  reason?: string,
): Promise<Sandbox> {
  const { name } = sandbox.metadata
  const { execution, pausedIn: previous } = sandbox.status
  await ensureSnapshotRecord(context, sandbox, snapshot)
  const paused = await context.records.setStatus('Sandbox', name, ({ status }) => ({
    ...settledStatus(status),
    state: 'paused',
    pausedIn: snapshot,
    ...(reason === undefined ? {} : { reason }),
  }))
  if (execution !== undefined) await endRun(context, execution)
  if (previous !== undefined && previous !== snapshot) await dropSnapshot(context, previous)
  return paused
}

async function ensureSnapshotRecord(context: Context, sandbox: Sandbox, id: string): Promise<void> {
  if ((await context.records.find('Snapshot', id)) !== undefined) return
  const info = (await context.node.listSnapshots(within(context, DEADLINES.call))).find((each) => each.id === id)
  const { spec, status } = sandbox
  if (status.imageName === undefined || status.execution === undefined)
    throw new IceboxError('Internal', `sandbox ${sandbox.metadata.name} has no image`)
  await context.records.create('Snapshot', id, {
    spec: {
      kind: 'memory',
      sandbox: sandbox.metadata.name,
      execution: status.execution,
      imageName: status.imageName,
      size: spec.size,
      env: spec.env,
      purpose: 'pause',
      ...(status.lastSnapshot === undefined ? {} : { parent: status.lastSnapshot }),
    },
    status: { state: 'ready', lastTransitionAt: now(), ...(info === undefined ? {} : { sizeBytes: info.sizeBytes }) },
  })
}

/** Writes the intent of a resume; on failure the sandbox stays paused with its snapshot. */
export async function beginResume(context: Context, name: string): Promise<Accepted<Sandbox>> {
  const resource = await context.records.setStatus('Sandbox', name, (sandbox) => {
    const { status } = sandbox
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
      },
    }
  })
  return { resource, settled: finishRestore(context, resource) }
}

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
      },
    }
  })
  return { resource, settled: finishRestore(context, resource) }
}

async function finishRestore(context: Context, sandbox: Sandbox): Promise<Sandbox> {
  const { name } = sandbox.metadata
  const { operation, execution: previous } = sandbox.status
  if (operation?.snapshot === undefined || operation.execution === undefined)
    throw new IceboxError('Internal', `sandbox ${name} resumes without a snapshot`)
  const execution = asExecutionId(operation.execution)
  const { verb, snapshot: snapshotId } = operation
  try {
    const snapshot = await context.records.get('Snapshot', snapshotId)
    const run = await restoreRun(context, sandbox, execution, snapshot)
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
    if (previous !== undefined && previous !== execution) await endRun(context, previous)
    context.log('info', `sandbox.${verb === 'rollback' ? 'rolledBack' : 'resumed'}`, {
      sandbox: name,
      execution,
      snapshot: snapshotId,
      ms: run.milliseconds,
      phases: run.phases,
    })
    return running
  } catch (error) {
    const failure = IceboxError.from(error)
    const alive = context.node.machines().some((machine) => machine.execution === previous)
    await context.records.setStatus('Sandbox', name, ({ status }) => {
      if (status.state !== 'resuming') return undefined
      if (alive) return { ...settledStatus(status), state: 'running' }
      if (verb === 'resume')
        return { ...settledStatus(status), state: 'paused', reason: 'ResumeFailed', message: failure.message }
      return { ...settledStatus(status), state: 'failed', reason: 'RollbackFailed', message: failure.message }
    })
    context.log('error', `sandbox.${verb}.failed`, { sandbox: name, execution, error: failure.message })
    throw failure
  }
}

/** Writes the intent of a delete; `settled` is its last state. */
export async function beginDelete(context: Context, name: string): Promise<Accepted<Sandbox>> {
  const resource = await context.records.setStatus('Sandbox', name, ({ status }) => ({
    ...settledStatus(status),
    state: 'deleting',
    operation: { ...status.operation, id: newOperationId(), verb: 'delete' as const, startedAt: now() },
  }))
  return { resource, settled: finishDelete(context, resource) }
}

export async function finishDelete(context: Context, sandbox: Sandbox): Promise<Sandbox> {
  const { name } = sandbox.metadata
  const { execution, operation, pausedIn } = sandbox.status
  for (const run of new Set([execution, operation?.execution])) {
    if (run !== undefined) await context.node.kill(asExecutionId(run), AbortSignal.timeout(DEADLINES.kill))
  }
  if (pausedIn !== undefined) await dropSnapshot(context, pausedIn)
  await context.records.remove('Sandbox', name)
  context.log('info', 'sandbox.deleted', { sandbox: name })
  return sandbox
}

/** Writes that a sandbox has failed and returns the error to throw. */
export async function fail(context: Context, name: string, reason: string, error: unknown): Promise<IceboxError> {
  const failure = IceboxError.from(error)
  // While the control plane lets go, an interrupted operation keeps its intent: the next start begins it again.
  if (context.closing.aborted) return failure
  await context.records
    .setStatus('Sandbox', name, ({ status }) => ({
      ...settledStatus(status),
      state: 'failed',
      reason,
      message: failure.message,
    }))
    .catch((cause) => {
      if (!isError(cause, 'NotFound', 'InvalidState')) throw cause
    })
  context.log('error', 'sandbox.failed', { sandbox: name, reason, error: failure.message })
  return failure
}
