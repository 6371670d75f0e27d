import { z } from 'zod'

/** What keeps one project, or a burst, from taking everything. Over them: `TooManyRequests`, which says which and how much. */
export const Limits = z.strictObject({
  /** Sandboxes of a project that have a machine or are about to. Paused and failed ones have none. */
  sandboxes: z.int().min(1).default(1000),
  /** Children of one fork. */
  forks: z.int().min(1).max(100).default(100),
  /** Bytes of all snapshots of a project, hidden ones too, beyond which no more are taken or imported. Pauses always may. */
  snapshotBytes: z.int().min(0).optional(),
  /** Creates, resumes, rollbacks and forks of all projects that are under way at once. */
  starts: z.int().min(1).default(64),
  /** Those that may wait for their turn. */
  queue: z.int().min(0).default(256),
  /** Seconds they wait at most. */
  queueSeconds: z.number().min(0).max(600).default(10),
  /** Exports, imports and verifications of snapshots of one project that are under way at once. */
  transfers: z.int().min(1).default(8),
  /** The same of all projects, but for each one's first. */
  transfersInAll: z.int().min(1).default(64),
  /** Those of them that use the disk at once; projects take turns. */
  transfersAtOnce: z.int().min(1).default(4),
})
export type Limits = z.infer<typeof Limits>
