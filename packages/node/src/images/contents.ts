import { readSync, writeSync } from 'node:fs'
import type { SpaceBudget } from './space-budget.ts'

export const BLOCK_BYTES = 4096
const BUFFER_BYTES = 1_048_576
const ZEROS = new Uint8Array(BLOCK_BYTES)

/** Blocks in a row of the file being made. */
export interface Run {
  start: number
  count: number
}

export const blocksOf = (bytes: number): number => Math.ceil(bytes / BLOCK_BYTES)

const classOf = (count: number): number => Math.floor(Math.log2(count))

/** Where a tree puts the contents of its files, one after the other: `begin`, `write` until the size is reached, `end`. */
export interface ContentStore {
  begin(bytes: number): Run
  write(chunk: Uint8Array): void
  end(): void
  /** Nobody needs it any more. */
  free(run: Run): void
}

/**
 * The file that becomes a file system: contents first, in whole blocks as they come, and what describes them after them.
 * Both formats we write let metadata lie anywhere, so that nothing is ever copied. Writes are gathered and synchronous.
 */
export class ContentFile implements ContentStore {
  /** Blocks at its start that are left for the end. */
  readonly reserved: number
  readonly #fd: number
  readonly #budget: SpaceBudget
  readonly #buffer = Buffer.alloc(BUFFER_BYTES)
  /** Where in the file the buffer begins, and how much of it is filled. */
  #offset = 0
  #filled = 0
  #next: number
  /** Holes by the whole part of the logarithm of their size, so that one which fits is found without a search. */
  readonly #freed: Run[][] = []

  /** `fd`: a new, empty file, open for reading too. */
  constructor(fd: number, reserved: number, budget: SpaceBudget) {
    this.#fd = fd
    this.reserved = reserved
    this.#next = reserved
    this.#budget = budget
  }

  /** The first block that nobody has been given. What is before it is in use, reserved or in `freed`. */
  get next(): number {
    return this.#next
  }

  get freed(): readonly Run[] {
    return this.#freed.flat()
  }

  allocate(count: number): Run {
    if (count === 0) return this.allocateNew(0)
    // In a class above, every hole fits; in its own, the last one may.
    for (let size = classOf(count); size < this.#freed.length; size++) {
      const holes = this.#freed[size] ?? []
      const hole = holes.at(-1)
      if (hole === undefined || hole.count < count) continue
      holes.pop()
      if (hole.count > count) this.free({ start: hole.start + count, count: hole.count - count })
      return { start: hole.start, count }
    }
    return this.allocateNew(count)
  }

  /** Blocks that have never been written, so that they read as zeros. */
  allocateNew(count: number): Run {
    const run = { start: this.#next, count }
    this.#next += count
    return run
  }

  free(run: Run): void {
    if (run.count === 0) return
    const size = classOf(run.count)
    while (this.#freed.length <= size) this.#freed.push([])
    this.#freed[size]?.push(run)
  }

  begin(bytes: number): Run {
    const run = this.allocate(blocksOf(bytes))
    this.#seek(run.start * BLOCK_BYTES)
    return run
  }

  end(): void {
    const partial = (this.#offset + this.#filled) % BLOCK_BYTES
    if (partial > 0) this.write(ZEROS.subarray(partial))
  }

  /** What was written at the start of a run. */
  read(run: Run, bytes: number): Buffer {
    this.flush()
    const content = Buffer.alloc(bytes)
    for (let at = 0; at < bytes; ) {
      const count = readSync(this.#fd, content, at, bytes - at, run.start * BLOCK_BYTES + at)
      if (count === 0) throw new Error('the file ends before a content that was written to it')
      at += count
    }
    return content
  }

  /** Writes into blocks that were allocated. A last block that is not full is filled with zeros. */
  writeAt(block: number, bytes: Uint8Array): void {
    this.#seek(block * BLOCK_BYTES)
    this.write(bytes)
    this.end()
  }

  /** Writes behind all blocks, in as many bytes as there are. Call last. */
  append(bytes: Uint8Array): void {
    this.#seek(this.#next * BLOCK_BYTES)
    this.write(bytes)
  }

  write(chunk: Uint8Array): void {
    this.#budget.spend(chunk.length)
    for (let at = 0; at < chunk.length; ) {
      const part = chunk.subarray(at, at + BUFFER_BYTES - this.#filled)
      this.#buffer.set(part, this.#filled)
      this.#filled += part.length
      at += part.length
      if (this.#filled === BUFFER_BYTES) this.flush()
    }
  }

  flush(): void {
    for (let at = 0; at < this.#filled; )
      at += writeSync(this.#fd, this.#buffer, at, this.#filled - at, this.#offset + at)
    this.#offset += this.#filled
    this.#filled = 0
  }

  #seek(offset: number): void {
    if (offset === this.#offset + this.#filled) return
    this.flush()
    this.#offset = offset
  }
}
