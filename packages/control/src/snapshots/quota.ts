import { IceboxError } from '@icebox/model'
import type { Context } from '../context.ts'

/**
 * Throws `TooManyRequests` when the project has no bytes left for another snapshot. How large that will be is not known before: one may
 * go over the limit.
 */
export function requireSnapshotBytes({ admission, records }: Context): void {
  const limit = admission.limits.snapshotBytes
  if (limit === undefined) return
  const bytes = records.of('Snapshot').sizeBytes
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
