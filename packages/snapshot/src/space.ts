import { statfsSync } from 'node:fs'
import { IceboxError } from '@icebox/model'

/** Left free whatever somebody wants: a host without any free space does nothing well. */
const RESERVE_BYTES = 268_435_456
const RESERVE_FRACTION = 1 / 64

export const mebibytes = (bytes: number): string => `${Math.ceil(bytes / 1_048_576)} MiB`

/** Bytes that may still be written into the file system of the directory, without what is kept in reserve. */
export function freeBytes(directory: string): number {
  const { bavail, blocks, bsize } = statfsSync(directory)
  return Math.max(0, Math.floor(bavail * bsize - Math.min(RESERVE_BYTES, blocks * bsize * RESERVE_FRACTION)))
}

/**
 * Throws NoSpace, with the numbers, unless `bytes` more fit into the file system of the directory. `promised`: bytes that
 * others are about to write there.
 */
export function requireSpace(directory: string, bytes: number, what: string, promised = 0): void {
  const free = Math.max(0, freeBytes(directory) - promised)
  if (bytes <= free) return
  throw new IceboxError(
    'NoSpace',
    `${what} needs ${mebibytes(bytes)} in ${directory}, where ${mebibytes(free)} are free${promised > 0 ? ` (${mebibytes(promised)} more are promised to saves and restores under way)` : ''}`,
    { details: { directory, neededBytes: Math.ceil(bytes), freeBytes: free } },
  )
}
