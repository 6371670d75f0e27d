import { availableParallelism } from 'node:os'
import { z } from 'zod'

/** What keeps one project, or a burst, from taking everything. Over them: `TooManyRequests`, which says which and how much. */
export const Limits = z.strictObject({
  /** Sandboxes of a project that have a machine or are about to. Paused and failed ones have none. */
  sandboxes: z.int().min(1).default(1000),
  /** Children of one fork. */
  forks: z.int().min(1).max(100).default(100),
  /** Bytes of all snapshots of a project, hidden ones too, beyond which no more are taken or imported. Pauses always may. */
  snapshotBytes: z.int().min(0).optional(),
  /** Records of each kind (sandboxes in any state, snapshots, templates, images) of a project. */
  records: z.int().min(1).default(20_000),
  /** Creates, resumes, rollbacks and forks of all projects that are under way at once. */
  starts: z.int().min(1).default(64),
  /** Those of one project. Twice the cores: more at once take no less time, and would make those of others wait. */
  projectStarts: z
    .int()
    .min(1)
    .default(() => Math.max(4, 2 * availableParallelism())),
  /** Those of one project that may wait for their turn. */
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
