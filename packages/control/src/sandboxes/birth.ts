import {
  asExecutionId,
  type ExecutionId,
  IceboxError,
  type Image,
  isError,
  type Phases,
  type Sandbox,
  type Snapshot,
} from '@icebox/model'
import { requireBounded } from '../bounds.ts'
import { type Context, DEADLINES, within } from '../context.ts'
import { shareImage } from '../images/ensure.ts'
import { settledStatus } from '../records.ts'
import type { Turn } from '../starts.ts'
import { type Noted, named } from '../telemetry/telemetry.ts'
import { bareTemplate } from '../templates/bare.ts'
import { startAndWait } from '../templates/build.ts'
import { endRun, helloOf, restoreRun, startEntrypoint } from './run.ts'

/**
 * Restores the snapshot named in the intent of a sandbox that is `creating`; `turn` is given up while it has to be made. Fails with
 * the reason of `stopping` when that aborts before there is something to restore.
 */
export async function finishCreate(
  context: Context,
  intent: Sandbox,
  stopping: AbortSignal,
  turn?: Turn,
): Promise<Sandbox> {
  return context.telemetry.operation('create', { ...named(intent), from: intent.spec.source.from }, (note) =>
    create(context, intent, stopping, turn, note),
  )
}

async function create(
  context: Context,
  intent: Sandbox,
  stopping: AbortSignal,
  turn: Turn | undefined,
  note: (facts: Noted) => void,
): Promise<Sandbox> {
  const { name } = intent.metadata
  try {
    const find = () => findSnapshot(context, intent, stopping)
    const known = intent.status.operation?.snapshot !== undefined
    const sandbox = known ? intent : await (turn === undefined ? find() : turn.aside(find))
    stopping.throwIfAborted()
    const { operation } = sandbox.status
    if (operation?.snapshot === undefined || operation.execution === undefined) {
      throw new IceboxError('Internal', `sandbox ${name} is being created without a snapshot to restore`)
    }
    const execution = asExecutionId(operation.execution)
    const snapshot = await snapshotOf(context, sandbox, operation.snapshot)
    note({ execution, snapshot: snapshot.metadata.name })
    const run = await restoreRun(context, sandbox, execution, snapshot, bootInstead(context, sandbox, execution))
    note({ phases: run.phases, ...(run.cold === undefined ? {} : { coldFallback: run.cold }) })
    try {
      // In a fork it goes on as it does in its source.
      if (sandbox.spec.source.from !== 'fork') await startEntrypoint(context, sandbox, execution)
      const forkedFrom = sandbox.spec.source.from === 'fork' ? snapshot.spec.parent : snapshot.metadata.name
      const isOwn = snapshot.metadata.namespace === context.records.namespace
      const settled = await context.records.setStatus('Sandbox', name, ({ status }) => ({
        ...settledStatus(status),
        state: 'running',
        execution,
        imageName: snapshot.spec.imageName,
        // What was booted cold stands on no snapshot, and on another project's nothing of this one can.
        ...(forkedFrom === undefined || run.cold !== undefined || !isOwn ? {} : { lastSnapshot: forkedFrom }),
        restoreMs: run.milliseconds,
      }))
      await context.exits.check(settled)
      return settled
    } catch (error) {
      await endRun(context, execution)
      throw error
    }
  } catch (error) {
    throw await fail(context, name, 'CreateFailed', stopping.aborted ? stopping.reason : error)
  }
}

/** What is restored. A public template's is of another project, and so is its image until the sandbox's own has it, too. */
async function snapshotOf(context: Context, { spec: { source } }: Sandbox, id: string): Promise<Snapshot> {
  if (source.from !== 'template' || source.project === undefined) return context.records.get('Snapshot', id)
  const owner = context.project(source.project).records
  const snapshot = await owner.get('Snapshot', id)
  await shareImage(context, await owner.get('Image', snapshot.spec.imageName))
  return snapshot
}

/**
 * How a sandbox of a template or an image comes to run when its snapshot cannot be restored: as the build of the template did
 * it, only slower. What was made from a snapshot of a user has no such way.
 */
function bootInstead(
  context: Context,
  sandbox: Sandbox,
  execution: ExecutionId,
): ((image: Image) => Promise<Phases>) | undefined {
  const { source, size } = sandbox.spec
  if (source.from !== 'template' && source.from !== 'image') return undefined
  return async (image) => {
    const hello = helloOf(sandbox, image)
    const machine = { imageDigest: image.spec.digest, size }
    const phases = await context.node.boot(execution, machine, hello, within(context, DEADLINES.boot))
    if (source.from === 'image') return phases
    const { records } = context.project(source.project ?? sandbox.metadata.namespace)
    const template = await records.get('Template', source.template)
    const started = performance.now()
    try {
      await startAndWait(context, execution, template.spec, () => undefined, context.stopping)
    } catch (error) {
      await endRun(context, execution)
      throw error
    }
    return { ...phases, start: performance.now() - started }
  }
}

/** Of a sandbox that is made from an image: finds or makes the image's own snapshot and adds it to the intent. */
async function findSnapshot(context: Context, { metadata, spec }: Sandbox, stopping: AbortSignal): Promise<Sandbox> {
  if (spec.source.from !== 'image')
    throw new IceboxError('Internal', `sandbox ${metadata.name} is of no snapshot and of no image`)
  const { image, byInstallation } = spec.source
  const signal = AbortSignal.any([stopping, context.stopping, within(context, DEADLINES.pull)])
  const template = await bareTemplate(context, image, spec.size, byInstallation, signal)
  const snapshot = await context.records.get('Snapshot', template.status.snapshot ?? '')
  await context.records.setSpec('Sandbox', metadata.name, (present) => {
    const env = { ...snapshot.spec.env, ...present.spec.env }
    requireBounded({ env })
    return { ...present.spec, env }
  })
  return context.records.setStatus('Sandbox', metadata.name, ({ status }) =>
    status.operation === undefined
      ? undefined
      : { ...status, operation: { ...status.operation, snapshot: snapshot.metadata.name } },
  )
}

/** Writes that a sandbox has failed and returns the error to throw. */
async function fail(context: Context, name: string, reason: string, error: unknown): Promise<IceboxError> {
  const failure = IceboxError.from(error)
  // When the control plane ends, an interrupted operation keeps its intent: the next start begins it again.
  if (context.stopping.aborted) return failure
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
  return failure
}
