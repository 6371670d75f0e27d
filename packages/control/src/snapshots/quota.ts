import { IceboxError } from '@icebox/model'
import type { Context } from '../context.ts'

/**
 * Throws `TooManyRequests` when the project has no bytes left for another snapshot. How large that will be is not known before: one may
 * go over the limit.
 */
export async function requireSnapshotBytes({ admission, records }: Context): Promise<void> {
  const limit = admission.limits.snapshotBytes
  if (limit === undefined) return
  const snapshots = await records.list('Snapshot')
  const bytes = snapshots.reduce((sum, { status }) => sum + (status.sizeBytes ?? 0), 0)
  if (bytes < limit) return
  throw new IceboxError(
    'TooManyRequests',
    `the snapshots of project ${records.namespace} take ${bytes} bytes, and may take ${limit}`,
    {
      remedy: 'Delete snapshots (`icebox snapshot list`), or have the limit raised.',
      details: { limit: 'snapshotBytes' },
    },
  )
}
