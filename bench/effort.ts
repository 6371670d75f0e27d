import type { ImageShape } from './image/content.ts'

/** How much is measured: enough that medians stand still, or just enough to see that everything works. */
export interface Effort {
  /** Rounds of what takes tenths of a second, of what takes seconds, and of what takes tens of seconds. */
  rounds: { short: number; long: number; image: number }
  /** Execs in a round. */
  execs: number
  /** Creates at once. */
  burst: number
  /** The same when everybody comes together. */
  crowd: number
  /** Children of a fork, and idle sandboxes counted for density. */
  children: number
  /** MiB resident in what is paused and resumed. */
  resident: readonly number[]
  image: ImageShape
  /** Bytes of a download through a port. */
  download: number
  /** Small requests to a port in a round. */
  requests: number
  /** Paused sandboxes that are recorded, and as many snapshots. */
  crowdRecords: number
  /** How long a server is watched that does nothing, milliseconds. */
  idleMs: number
  /** Records at a start, and the seconds that it may take. */
  starts: readonly { records: number; seconds: number }[]
}

export const FULL: Effort = {
  rounds: { short: 20, long: 6, image: 3 },
  execs: 5,
  burst: 10,
  crowd: 50,
  children: 20,
  resident: [16, 256],
  image: { files: 12_000, bytes: 290e6, layers: 4 },
  download: 100e6,
  requests: 1000,
  crowdRecords: 10_000,
  idleMs: 60_000,
  starts: [
    { records: 10_000, seconds: 2 },
    { records: 100_000, seconds: 4 },
  ],
}

export const SMOKE: Effort = {
  rounds: { short: 1, long: 1, image: 1 },
  execs: 2,
  burst: 2,
  crowd: 3,
  children: 2,
  resident: [16],
  image: { files: 600, bytes: 3e6, layers: 2 },
  download: 2e6,
  requests: 100,
  crowdRecords: 50,
  idleMs: 200,
  starts: [{ records: 100, seconds: 2 }],
}
