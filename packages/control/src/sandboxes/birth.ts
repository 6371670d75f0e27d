import { asExecutionId, IceboxError, isError, type Sandbox, type Snapshot } from '@icebox/model'
import { type Context, DEADLINES, within } from '../context.ts'
import { shareImage } from '../images/ensure.ts'
import { settledStatus } from '../records.ts'
import type { Turn } from '../starts.ts'
import { bareTemplate } from '../templates/bare.ts'
import { endRun, restoreRun, startEntrypoint } from './run.ts'

/** Restores the snapshot named in the intent of a sandbox that is `creating`; `turn` is given up while it has to be made. */
export async function finishCreate(context: Context, intent: Sandbox, turn?: Turn): Promise<Sandbox> {
  const { name } = intent.metadata
  try {
    const find = () => findSnapshot(context, intent)
    const known = intent.status.operation?.snapshot !== undefined
    const sandbox = known ? intent : await (turn === undefined ? find() : turn.aside(find))
    const { operation } = sandbox.status
    if (operation?.snapshot === undefined || operation.execution === undefined) {
      throw new IceboxError('Internal', `sandbox ${name} is being created without a snapshot to restore`)
    }
    const execution = asExecutionId(operation.execution)
    const snapshot = await snapshotOf(context, sandbox, operation.snapshot)
    const run = await restoreRun(context, sandbox, execution, snapshot)
    try {
      // In a fork it goes on as it does in its source.
      if (sandbox.spec.source.from !== 'fork') await startEntrypoint(context, sandbox, execution)
      const forkedFrom = sandbox.spec.source.from === 'fork' ? snapshot.spec.parent : snapshot.metadata.name
      const settled = await context.records.setStatus('Sandbox', name, ({ status }) => ({
        ...settledStatus(status),
        state: 'running',
        execution,
        imageName: snapshot.spec.imageName,
        ...(forkedFrom === undefined ? {} : { lastSnapshot: forkedFrom }),
        restoreMs: run.milliseconds,
      }))
      await context.exits.check(settled)
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

/** What is restored. A public template's is of another project, and so is its image until the sandbox's own has it, too. */
async function snapshotOf(context: Context, { spec: { source } }: Sandbox, id: string): Promise<Snapshot> {
  if (source.from !== 'template' || source.project === undefined) return context.records.get('Snapshot', id)
  const owner = context.project(source.project).records
  const snapshot = await owner.get('Snapshot', id)
  await shareImage(context, await owner.get('Image', snapshot.spec.imageName))
  return snapshot
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
  context.log('error', 'sandbox.failed', { sandbox: name, reason, error: failure.message })
  return failure
}
