import { asSnapshotId } from '@icebox/model'
import { type Context, DEADLINES } from '../context.ts'

/** Removes the record first and the bytes after: a crash in between leaves bytes of nobody, which the next start removes. */
export async function dropSnapshot(context: Context, id: string): Promise<void> {
  await context.records.remove('Snapshot', id)
  await context.node.removeSnapshot(asSnapshotId(id), AbortSignal.timeout(DEADLINES.call))
}
