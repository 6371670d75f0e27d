import { requireSpace } from '@icebox/snapshot'

/** How much is written before the file system is asked again: others write to it too. */
const INTERVAL_BYTES = 16_777_216
const SMALLEST_BYTES = 1_048_576

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
