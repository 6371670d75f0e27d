import {
  asExecutionId,
  asSnapshotId,
  canPause,
  IceboxError,
  isError,
  newOperationId,
  newSnapshotId,
  type Sandbox,
  type SnapshotKind,
} from '@icebox/model'
import { type Context, DEADLINES, within } from '../context.ts'
import type { Accepted } from '../control.ts'
import { settledStatus } from '../records.ts'
import { dropSnapshot } from '../snapshots/remove.ts'
import { type Noted, named } from '../telemetry/telemetry.ts'
import { refuse } from './refuse.ts'
import { endRun } from './run.ts'
import { PAUSED_BY_SHUTDOWN, PAUSED_FOR_SPACE, SPACE_MESSAGE } from './time.ts'

const now = () => new Date().toISOString()

export interface PauseRequest {
  kind: SnapshotKind
  /** To be given once it is paused. */
  reason?: typeof PAUSED_BY_SHUTDOWN | typeof PAUSED_FOR_SPACE
  /** Throws when there is to be no pause of the sandbox as it is now. */
  check?: (sandbox: Sandbox) => void
}

/** Under which a pause is joined: what one keeps, the other must keep too. */
export const pauseVerb = (kind: SnapshotKind): string => (kind === 'memory' ? 'pause' : `pause (${kind})`)

/**
 * Writes the intent of a pause; `settled` is the sandbox paused, or the error with the sandbox running on. A sandbox that is
 * paused already stays so; one that the server had paused is from here on one that somebody did.
 */
export async function beginPause(
  context: Context,
  name: string,
  { kind, reason, check }: PauseRequest,
): Promise<Accepted<Sandbox>> {
  const resource = await context.records.setStatus('Sandbox', name, (sandbox) => {
    check?.(sandbox)
    if (sandbox.status.state === 'paused')
      return sandbox.status.reason === PAUSED_BY_SHUTDOWN
        ? { ...settledStatus(sandbox.status), state: 'paused' }
        : undefined
    if (!canPause(sandbox.status.state)) refuse(sandbox, 'pause')
    return {
      ...settledStatus(sandbox.status),
      state: 'pausing',
      operation: {
        id: newOperationId(),
        verb: 'pause' as const,
        startedAt: now(),
        snapshot: newSnapshotId(),
        kind,
        ...(reason === undefined ? {} : { reason }),
      },
    }
  })
  return {
    resource,
    settled: resource.status.state === 'paused' ? Promise.resolve(resource) : finishPause(context, resource),
  }
}

/**
 * Begins a pause that somebody asks for, or joins an equal one under way. The one at the end of its time may be given up before
 * it has begun, because of an extension, which is no answer to who just wants it paused.
 */
export async function pauseByHand(context: Context, name: string, kind: SnapshotKind): Promise<Accepted<Sandbox>> {
  const { operations } = context
  const verb = pauseVerb(kind)
  const begin = () => operations.exclusive(name, verb, () => beginPause(context, name, { kind }))
  const joins = operations.verb(name) === verb
  try {
    return await begin()
  } catch (error) {
    if (!joins || !isError(error, 'Conflict')) throw error
    return begin()
  }
}

function finishPause(context: Context, sandbox: Sandbox): Promise<Sandbox> {
  return context.telemetry.operation('pause', named(sandbox), (note) => pause(context, sandbox, note))
}

async function pause(context: Context, sandbox: Sandbox, note: (facts: Noted) => void): Promise<Sandbox> {
  const { name } = sandbox.metadata
  const { execution, operation } = sandbox.status
  if (execution === undefined || operation?.snapshot === undefined)
    throw new IceboxError('Internal', `sandbox ${name} pauses without a run`)
  const run = asExecutionId(execution)
  let sizeBytes: number
  try {
    const saved = await context.node.save(
      run,
      asSnapshotId(operation.snapshot),
      {
        kind: operation.kind ?? 'memory',
        hold: true,
        urgent: operation.reason === PAUSED_FOR_SPACE,
        env: sandbox.spec.env,
        ...(sandbox.status.lastSnapshot === undefined ? {} : { parent: asSnapshotId(sandbox.status.lastSnapshot) }),
      },
      within(context, DEADLINES.save),
    )
    sizeBytes = saved.snapshot.sizeBytes
    note({ execution, snapshot: operation.snapshot, sizeBytes, phases: saved.phases })
  } catch (error) {
    const failure = IceboxError.from(error)
    const machine = context.node.machines().find((machine) => machine.execution === run)
    const alive = machine !== undefined
    note({ alive })
    // What it wrote may be complete: the reconciler looks, and finishes the pause or undoes it.
    if (machine?.frozen) throw failure
    await context.records.setStatus('Sandbox', name, ({ status }) =>
      alive
        ? { ...settledStatus(status), state: 'running' }
        : { ...settledStatus(status), state: 'failed', reason: 'PauseFailed', message: failure.message },
    )
    throw failure
  }
  try {
    return await commitPause(context, sandbox, operation.snapshot, sizeBytes)
  } catch (error) {
    return await undoPause(context, sandbox, operation.snapshot, error)
  }
}

/**
 * The pause could not be written down: the run goes on, and first the bytes go, since a later look at the intent would
 * find them complete and take the sandbox for paused. What fails here too is left to the reconciler.
 */
async function undoPause(context: Context, sandbox: Sandbox, snapshot: string, error: unknown): Promise<Sandbox> {
  const { name } = sandbox.metadata
  const { status } = sandbox
  const present = await context.records.get('Sandbox', name)
  if (present.status.state === 'paused') return present
  const signal = within(context, DEADLINES.call)
  await context.node.removeSnapshot(asSnapshotId(snapshot), signal)
  await context.node.thaw(asExecutionId(status.execution ?? ''), signal)
  await context.records.remove('Snapshot', snapshot)
  await context.records.setStatus('Sandbox', name, (found) =>
    found.status.state === 'pausing' ? { ...settledStatus(found.status), state: 'running' } : undefined,
  )
  const failure = IceboxError.from(error)
  throw failure
}

/**
 * The snapshot is durable: writes that it holds the sandbox. With that the sandbox is paused, whatever happens; the run is then
 * ended and the snapshot of the pause before dropped, which nobody waits for: it takes longer the more memory there was.
 */
export async function commitPause(
  context: Context,
  sandbox: Sandbox,
  snapshot: string,
  sizeBytes?: number,
): Promise<Sandbox> {
  const { name } = sandbox.metadata
  const { execution, pausedIn: previous, operation } = sandbox.status
  const reason = operation?.reason
  await ensureSnapshotRecord(context, sandbox, snapshot, sizeBytes)
  const paused = await context.records.setStatus('Sandbox', name, ({ status }) => ({
    ...settledStatus(status),
    state: 'paused',
    pausedIn: snapshot,
    ...(reason === undefined ? {} : { reason }),
    ...(reason === PAUSED_FOR_SPACE ? { message: SPACE_MESSAGE } : {}),
  }))
  if (execution !== undefined) context.operations.afterwards(endRun(context, execution))
  if (previous !== undefined && previous !== snapshot)
    context.operations.afterwards(
      dropSnapshot(context, previous).catch((error) =>
        context.log('warn', 'snapshot.drop.failed', { snapshot: previous, error: IceboxError.from(error).message }),
      ),
    )
  return paused
}

async function ensureSnapshotRecord(
  context: Context,
  sandbox: Sandbox,
  id: string,
  knownBytes: number | undefined,
): Promise<void> {
  if ((await context.records.find('Snapshot', id)) !== undefined) return
  const sizeBytes = knownBytes ?? (await bytesOf(context, id))
  const { spec, status } = sandbox
  if (status.imageName === undefined || status.execution === undefined)
    throw new IceboxError('Internal', `sandbox ${sandbox.metadata.name} has no image`)
  await context.records.create('Snapshot', id, {
    spec: {
      kind: status.operation?.kind ?? 'memory',
      sandbox: sandbox.metadata.name,
      execution: status.execution,
      imageName: status.imageName,
      size: spec.size,
      env: spec.env,
      purpose: 'pause',
      ...(status.lastSnapshot === undefined ? {} : { parent: status.lastSnapshot }),
    },
    status: { state: 'ready', lastTransitionAt: now(), ...(sizeBytes === undefined ? {} : { sizeBytes }) },
  })
}

async function bytesOf(context: Context, snapshot: string): Promise<number | undefined> {
  const found = await context.node.findSnapshot(asSnapshotId(snapshot), within(context, DEADLINES.call))
  return found === 'damaged' ? undefined : found?.sizeBytes
}
