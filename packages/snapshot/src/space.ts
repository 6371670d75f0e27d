import { statfsSync, statSync } from 'node:fs'
import { dirname } from 'node:path'
import { IceboxError, type SpaceClaim } from '@icebox/model'

/**
 * Left free whatever somebody wants: so much, or this part of the disk when that is more. Of a small disk it is a part that leaves
 * something to use.
 */
const RESERVE_BYTES = 1_073_741_824
const RESERVE_FRACTION = 1 / 50
const MOST_RESERVED = 1 / 32
/** What a stream of unknown length claims at a time. */
const STEP_BYTES = 67_108_864

export const mebibytes = (bytes: number): string => `${Math.ceil(bytes / 1_048_576)} MiB`

interface Promised {
  bytes: number
  written: () => number
}

/** What is about to be written, by file system: one ledger for all writers of this process. */
const ledger = new Map<number, Set<Promised>>()

function promisesAt(directory: string): Set<Promised> {
  const device = statSync(directory).dev
  const known = ledger.get(device) ?? new Set()
  ledger.set(device, known)
  return known
}

/** Bytes that are promised to others and not on the disk yet. */
function outstanding(promises: ReadonlySet<Promised>): number {
  let sum = 0
  for (const { bytes, written } of promises) sum += Math.max(0, bytes - written())
  return sum
}

export interface Space {
  /** Bytes that may still be claimed; less than none when others have taken of the reserve. */
  freeBytes: number
  reserveBytes: number
}

/** How much room there is in the file system of the directory, without the reserve and what is promised. */
export function spaceOf(directory: string): Space {
  const { bavail, blocks, bsize } = statfsSync(directory)
  const size = blocks * bsize
  const reserveBytes = Math.floor(Math.min(Math.max(RESERVE_BYTES, size * RESERVE_FRACTION), size * MOST_RESERVED))
  return { freeBytes: Math.floor(bavail * bsize) - reserveBytes - outstanding(promisesAt(directory)), reserveBytes }
}

/** Bytes that may still be claimed in the file system of the directory. */
export const freeBytes = (directory: string): number => Math.max(0, spaceOf(directory).freeBytes)

/** Throws NoSpace, with the numbers, unless `bytes` more fit. `urgent`: the reserve counts too. */
export function requireSpace(directory: string, bytes: number, what: string, { urgent = false } = {}): void {
  const space = spaceOf(directory)
  const free = Math.max(0, space.freeBytes + (urgent ? space.reserveBytes : 0))
  if (bytes <= free) return
  const promised = outstanding(promisesAt(directory))
  throw new IceboxError(
    'NoSpace',
    `${what} needs ${mebibytes(bytes)} in ${directory}, where ${mebibytes(free)} are free${promised > 0 ? ` (${mebibytes(promised)} more are promised to others under way)` : ''}`,
    { details: { directory, neededBytes: Math.ceil(bytes), freeBytes: free } },
  )
}

/**
 * Claims room in the file system of the directory until it is released; nobody else is promised it. Throws NoSpace. `written` says
 * how much of it is on the disk already, as the file system counts: that much is not counted twice. `urgent`: of the reserve too.
 */
export function claimSpace(
  directory: string,
  bytes: number,
  what: string,
  { written = () => 0, urgent = false }: { written?: () => number; urgent?: boolean } = {},
): SpaceClaim {
  requireSpace(directory, bytes, what, { urgent })
  const promises = promisesAt(directory)
  const promised = { bytes, written }
  promises.add(promised)
  const release = () => void promises.delete(promised)
  return {
    grow(more) {
      requireSpace(directory, more, what, { urgent })
      promised.bytes += more
    },
    release,
    [Symbol.dispose]: release,
  }
}

/**
 * Passes on what is about to be written to the file. Room for it is claimed: for all of it at once where its length is announced, else in steps as
 * it comes. The stream ends with NoSpace when there is no more. The room is given back when the stream ends, as the bytes are there then.
 */
export async function* withinSpace(
  content: AsyncIterable<Uint8Array>,
  file: string,
  announced: number | undefined,
  what: string,
): AsyncGenerator<Uint8Array> {
  const written = () => allocatedBytes(file)
  let claimed = announced ?? STEP_BYTES
  using claim = claimSpace(dirname(file), claimed, what, { written })
  let bytes = 0
  for await (const chunk of content) {
    bytes += chunk.byteLength
    if (bytes > claimed) {
      claim.grow(STEP_BYTES)
      claimed += STEP_BYTES
    }
    yield chunk
  }
}

/** What a file takes on the disk; nothing when it is not there. */
export const allocatedBytes = (file: string): number => (statSync(file, { throwIfNoEntry: false })?.blocks ?? 0) * 512
