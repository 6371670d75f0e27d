import { asSnapshotId } from '@icebox/model'
import { type Context, DEADLINES } from '../context.ts'

/**
 * Removes the bytes first and the record after: bytes without a record are taken for those of a lost database, and the next start
 * would refuse. A crash in between leaves the record of what is on its way out, and whatever asked for that asks again.
 */
export async function dropSnapshot(context: Context, id: string): Promise<void> {
  await context.node.removeSnapshot(asSnapshotId(id), AbortSignal.timeout(DEADLINES.call))
  await context.records.remove('Snapshot', id)
}
