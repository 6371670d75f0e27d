import { statfsSync } from 'node:fs'
import { IceboxError } from '@icebox/model'

/** Left free whatever an image wants: a host without any free space does nothing well. */
const RESERVE_BYTES = 268_435_456
const RESERVE_FRACTION = 1 / 64
/** How much is written before the file system is asked again: others write to it too. */
const INTERVAL_BYTES = 16_777_216
const SMALLEST_BYTES = 1_048_576

/** Bytes that may still be written below the directory, without what is kept in reserve. */
export function freeBytes(directory: string): number {
  const { bavail, blocks, bsize } = statfsSync(directory)
  return Math.max(0, bavail * bsize - Math.min(RESERVE_BYTES, blocks * bsize * RESERVE_FRACTION))
}

/** Throws `NoSpace` when the bytes do not fit. */
export function requireSpace(directory: string, bytes: number, what: string): void {
  const free = freeBytes(directory)
  if (bytes <= free) return
  throw new IceboxError(
    'NoSpace',
    `${what} needs ${mebibytes(bytes)} in ${directory}, where ${mebibytes(free)} are free`,
    {
      details: { directory, neededBytes: Math.ceil(bytes), freeBytes: free },
    },
  )
}

export const mebibytes = (bytes: number): string => `${Math.ceil(bytes / 1_048_576)} MiB`

/** Keeps what is unpacked within the free space, since what an archive grows to cannot be known before. */
export class SpaceBudget {
  readonly #directory: string
  #unchecked = INTERVAL_BYTES

  constructor(directory: string) {
    this.#directory = directory
  }

  /** Call before writing. Throws `NoSpace`. */
  spend(bytes: number): void {
    this.#unchecked += bytes
    if (this.#unchecked < INTERVAL_BYTES) return
    this.#unchecked = 0
    requireSpace(this.#directory, Math.max(bytes, SMALLEST_BYTES), 'unpacking the image')
  }
}
