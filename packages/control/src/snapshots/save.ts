import {
  asSnapshotId,
  type ExecutionId,
  type Sandbox,
  type Snapshot,
  type SnapshotId,
  type SnapshotKind,
  type SnapshotSpec,
} from '@icebox/model'
import { type Context, DEADLINES, within } from '../context.ts'
import type { Noted } from '../telemetry/telemetry.ts'

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

/** Saves a running sandbox, which goes on, and then records the snapshot as ready. */
export async function saveOf(
  context: Context,
  sandbox: Sandbox,
  execution: ExecutionId,
  wanted: { id: SnapshotId; kind: SnapshotKind; purpose: SnapshotSpec['purpose'] },
  note: (facts: Noted) => void,
): Promise<Snapshot> {
  const spec = specOf(sandbox, execution, wanted)
  const saved = await saveBytes(context, execution, wanted.id, spec, note)
  return context.records.create('Snapshot', wanted.id, {
    spec,
    status: { state: 'ready', lastTransitionAt: now(), ...saved },
  })
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
