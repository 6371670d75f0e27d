import { createHash } from 'node:crypto'
import {
  asExecutionId,
  asSnapshotId,
  type ExecutionId,
  type Hello,
  IceboxError,
  type Image,
  isError,
  type Phases,
  type Sandbox,
  type Snapshot,
} from '@icebox/model'
import { type Context, DEADLINES, within } from '../context.ts'

/** Errors of a restore that no other attempt changes. */
const BEYOND_RESTORE = ['SnapshotCorrupt', 'SnapshotIncompatible'] as const

/** Tag of the exec that runs a sandbox's entrypoint. */
export const ENTRYPOINT_TAG = 'entrypoint'

/** Who a guest is. The machine id is derived from the resource's uid: the same after every pause, another in every fork. */
export function helloOf(sandbox: Sandbox, image: Image): Hello {
  const { name, uid } = sandbox.metadata
  return {
    sandbox: name,
    hostname: sandbox.spec.displayName ?? name,
    machineId: createHash('sha256').update(`machine-id:${uid}`).digest('hex').slice(0, 32),
    env: { ...sandbox.spec.env, ICEBOX_SANDBOX_ID: name },
    defaults: { user: image.status.config.user, workingDir: image.status.config.workingDir },
  }
}

/** What a restore became: `cold` says why it was a boot instead. */
export interface Run {
  phases: Phases
  milliseconds: number
  cold?: string
}

/**
 * Restores a snapshot as a run of the sandbox. Resolves when the guest has acknowledged who it is; on failure nothing of
 * the run is left. A snapshot that cannot be restored here is no error where there is a way without it: `boot`.
 */
export async function restoreRun(
  context: Context,
  sandbox: Sandbox,
  execution: ExecutionId,
  snapshot: Snapshot,
  boot?: (image: Image) => Promise<Phases>,
): Promise<Run> {
  const { metrics } = context.telemetry
  const image = await context.records.get('Image', snapshot.spec.imageName)
  const started = performance.now()
  metrics.restore('intent')
  try {
    const phases = await restore(context, sandbox, execution, snapshot, image)
    metrics.restore('success')
    return { phases, milliseconds: performance.now() - started }
  } catch (error) {
    if (boot === undefined || !isError(error, ...BEYOND_RESTORE)) {
      metrics.restore('failure')
      throw error
    }
    const facts = { sandbox: sandbox.metadata.name, snapshot: snapshot.metadata.name, why: error.message }
    context.log('warn', 'restore.cold', facts)
    const phases = await boot(image).catch((failure) => {
      metrics.restore('failure')
      throw failure
    })
    metrics.restore('cold_fallback')
    return { phases, milliseconds: performance.now() - started, cold: error.message }
  }
}

async function restore(
  context: Context,
  sandbox: Sandbox,
  execution: ExecutionId,
  { metadata, spec, status }: Snapshot,
  image: Image,
): Promise<Phases> {
  if (status.state === 'failed')
    throw new IceboxError('SnapshotCorrupt', `snapshot ${metadata.name} has failed: ${status.message}`)
  if (status.state !== 'ready')
    throw new IceboxError('InvalidState', `snapshot ${metadata.name} is ${status.state}, not ready`)
  return context.node.restore(
    execution,
    asSnapshotId(metadata.name),
    { imageDigest: image.spec.digest, size: spec.size },
    helloOf(sandbox, image),
    within(context, DEADLINES.restore),
  )
}

/** Ends a run. Failing is logged and left to the reconciler, which finds the run again by its id. */
export async function endRun(context: Context, execution: string): Promise<void> {
  try {
    await context.node.kill(asExecutionId(execution), AbortSignal.timeout(DEADLINES.kill))
  } catch (error) {
    context.log('warn', 'machine.kill.failed', { execution, error: IceboxError.from(error).message })
  }
}

/** Starts the entrypoint in a fresh run. Its end, also at once, does not end the sandbox. */
export async function startEntrypoint(context: Context, sandbox: Sandbox, execution: ExecutionId): Promise<void> {
  const { entrypoint } = sandbox.spec
  if (entrypoint.length === 0) return
  const session = await context.node
    .guest(execution)
    .exec({ argv: entrypoint, tag: ENTRYPOINT_TAG }, within(context, DEADLINES.call))
  session.detach()
}
