import type { Cache } from '../cache/cache.ts'
import type { SnapshotSummary } from '../cache/summary.ts'

/**
 * Hidden snapshots go with what they belong to. This is one that a crash parted from it: the pause before the last, a template's of
 * a build that was not finished, a fork's whose children have all settled.
 */
export const isForgotten = (cache: Cache, { name, purpose }: SnapshotSummary): boolean =>
  purpose !== 'user' &&
  cache.all('Sandbox').first('holds', name) === undefined &&
  cache.all('Template').first('snapshot', name) === undefined

/** Whether a record tells of the snapshot on the disk, or a sandbox is writing it. */
export const isClaimed = (cache: Cache, snapshot: string): boolean =>
  cache.all('Snapshot').first('name', snapshot) !== undefined ||
  cache.all('Sandbox').first('restores', snapshot) !== undefined

/** Purposes of snapshots that users do not see. */
export const HIDDEN_PURPOSES = ['pause', 'template', 'fork'] as const
