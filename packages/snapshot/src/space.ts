import { statfs } from 'node:fs/promises'
import { IceboxError } from '@icebox/model'

/** Left free whatever somebody wants: a host without any free space does nothing well. */
const RESERVE_BYTES = 268_435_456
const RESERVE_FRACTION = 1 / 64

const mebibytes = (bytes: number): string => `${Math.ceil(bytes / 1_048_576)} MiB`

/**
 * Throws NoSpace, with the numbers, unless `bytes` more fit into the file system of the directory. `promised`: bytes that
 * others are about to write there.
 */
export async function requireSpace(directory: string, bytes: number, what: string, promised = 0): Promise<void> {
  const { bavail, blocks, bsize } = await statfs(directory)
  const reserve = Math.min(RESERVE_BYTES, blocks * bsize * RESERVE_FRACTION)
  const free = Math.max(0, Math.floor(bavail * bsize - reserve - promised))
  if (bytes <= free) return
  throw new IceboxError(
    'NoSpace',
    `${what} needs ${mebibytes(bytes)} in ${directory}, where ${mebibytes(free)} are free${promised > 0 ? ` (${mebibytes(promised)} more are promised to saves under way)` : ''}`,
    { details: { directory, neededBytes: Math.ceil(bytes), freeBytes: free } },
  )
}
