import { totalmem } from 'node:os'
import { constrainedMemory } from 'node:process'
import { IceboxError, ITEM_BYTES } from '@icebox/model'

const MIB = 1_048_576
/** Several images may be unpacked at once: with eight of them, half of the memory. */
const SHARE = 16
const MIN_BYTES = 128 * MIB
const MAX_BYTES = 512 * MIB

/**
 * What a name in a tree costs besides its bytes: its node, inode, times and place in a map, and what the writers of file systems keep
 * of it besides.
 */
export const NODE_BYTES = 4 * ITEM_BYTES

/** What may be kept in memory of one image: a sixteenth of what this process may have, 128 to 512 MiB. */
export function imageMemoryBytes(): number {
  // Without a control group's limit it is 0 or beyond all memory.
  const constrained = constrainedMemory() || Number.POSITIVE_INFINITY
  return Math.min(MAX_BYTES, Math.max(MIN_BYTES, Math.floor(Math.min(totalmem(), constrained) / SHARE)))
}

/** What is kept in memory of an image while its layers are read: all but contents. Nothing is given back. */
export class ImageMemory {
  readonly limit: number
  #used = 0

  constructor(limit: number) {
    this.limit = limit
  }

  /** Call before keeping anything. Throws `ImageInvalid`. */
  keep(bytes: number): void {
    this.#used += bytes
    if (this.#used > this.limit)
      throw new IceboxError(
        'ImageInvalid',
        `the names, links and attributes of the image take more than ${this.limit} bytes of memory`,
        { details: { limitBytes: this.limit }, remedy: 'Use an image with fewer files or attributes.' },
      )
  }
}
