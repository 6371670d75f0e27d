import { createHash } from 'node:crypto'
import {
  asExecutionId,
  asSnapshotId,
  type ExecutionId,
  type Hello,
  IceboxError,
  type Image,
  type Phases,
  type Sandbox,
  type Snapshot,
} from '@icebox/model'
import { type Context, DEADLINES, within } from '../context.ts'

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

/**
 * Restores a snapshot as a run of the sandbox. Resolves when the guest has acknowledged who it is; on failure nothing of
 * the run is left.
 */
export async function restoreRun(
  context: Context,
  sandbox: Sandbox,
  execution: ExecutionId,
  snapshot: Snapshot,
): Promise<{ phases: Phases; milliseconds: number }> {
  if (snapshot.status.state !== 'ready') {
    throw new IceboxError('InvalidState', `snapshot ${snapshot.metadata.name} is ${snapshot.status.state}, not ready`)
  }
  const image = await context.records.get('Image', snapshot.spec.imageName)
  const started = performance.now()
  const { metrics } = context.telemetry
  metrics.restore('intent')
  const restoring = context.node.restore(
    execution,
    asSnapshotId(snapshot.metadata.name),
    { imageDigest: image.spec.digest, size: snapshot.spec.size },
    helloOf(sandbox, image),
    within(context, DEADLINES.restore),
  )
  restoring.then(
    () => metrics.restore('success'),
    () => metrics.restore('failure'),
  )
  const phases = await restoring
  return { phases, milliseconds: performance.now() - started }
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
