import {
  asSnapshotId,
  type ExecutionId,
  IceboxError,
  type Sandbox,
  type Snapshot,
  type SnapshotId,
  type SnapshotSpec,
} from '@icebox/model'
import { type Context, DEADLINES, within } from '../context.ts'
import type { Noted } from '../telemetry/telemetry.ts'
import { dropSnapshot } from './remove.ts'

const now = () => new Date().toISOString()

/** The record of a snapshot of this run, as its intent. */
export function specOf(
  sandbox: Sandbox,
  execution: string,
  wanted: Pick<SnapshotSpec, 'kind' | 'purpose'> & {
    displayName?: string | undefined
    tags?: readonly string[] | undefined
    expiresAt?: string | undefined
  },
): SnapshotSpec {
  const { spec, status, metadata } = sandbox
  return {
    kind: wanted.kind,
    ...(wanted.displayName === undefined ? {} : { displayName: wanted.displayName }),
    ...(wanted.tags === undefined ? {} : { tags: [...new Set(wanted.tags)] }),
    sandbox: metadata.name,
    execution,
    ...(status.lastSnapshot === undefined ? {} : { parent: status.lastSnapshot }),
    ...(spec.source.from === 'template' ? { template: spec.source.template } : {}),
    imageName: status.imageName ?? '',
    size: spec.size,
    env: spec.env,
    purpose: wanted.purpose,
    ...(wanted.expiresAt === undefined ? {} : { expiresAt: new Date(wanted.expiresAt).toISOString() }),
  }
}

/**
 * Takes a hidden snapshot of a run, which goes on. Its record is written before the bytes are there, as the intent: bytes without a
 * record belong to nobody. When the save fails, nothing of either stays.
 */
export async function saveHidden(
  context: Context,
  execution: ExecutionId,
  id: SnapshotId,
  spec: SnapshotSpec,
  note: (facts: Noted) => void,
): Promise<Snapshot> {
  const { records } = context
  await records.create('Snapshot', id, { spec, status: { state: 'creating', lastTransitionAt: now() } })
  try {
    const saved = await saveBytes(context, execution, id, spec, note)
    return await records.setStatus('Snapshot', id, () => ({ state: 'ready', ...saved }))
  } catch (error) {
    await dropSnapshot(context, id).catch((trouble) =>
      context.log('warn', 'snapshot.drop.failed', { snapshot: id, error: IceboxError.from(trouble).message }),
    )
    throw error
  }
}

/** Makes the bytes durable. */
export async function saveBytes(
  context: Context,
  execution: ExecutionId,
  id: SnapshotId,
  spec: SnapshotSpec,
  note: (facts: Noted) => void,
): Promise<{ sizeBytes: number; stoppedMs: number }> {
  const { snapshot, phases } = await context.node.save(
    execution,
    id,
    {
      kind: spec.kind,
      hold: false,
      env: spec.env,
      ...(spec.parent === undefined ? {} : { parent: asSnapshotId(spec.parent) }),
    },
    within(context, DEADLINES.save),
  )
  note({ execution, snapshot: id, sizeBytes: snapshot.sizeBytes, phases })
  return { sizeBytes: snapshot.sizeBytes, stoppedMs: phases.stopped ?? 0 }
}
