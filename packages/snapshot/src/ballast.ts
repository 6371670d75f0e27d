import { closeSync, existsSync, openSync, rmSync, statfsSync } from 'node:fs'
import { join } from 'node:path'
import { allocate, reserveBlocks } from './linux/libc.ts'
import { spaceOf } from './space.ts'

/** What is kept to be given up, of a disk that is not small. */
const BALLAST_BYTES = 134_217_728
const MOST_OF_DISK = 1 / 64
/** Blocks that the database's log has before it needs them: some hundred writes, whoever takes the rest of the disk. */
const LOG_BYTES = 16_777_216
/** How often it is looked whether there is room again, milliseconds. */
const LOOK_MS = 1000

/** Below it a server cannot start: it writes who it is. */
const LEAST_TO_START = 1_048_576
const NAME = 'ballast'

/** Gives up the ballast of a data directory, if it has one, where the disk is too full for a server to start. To be called before it is opened. */
export function makeRoomToStart(directory: string): void {
  if (!existsSync(join(directory, 'lock')) || !existsSync(join(directory, NAME))) return
  const { bavail, bsize } = statfsSync(directory)
  if (bavail * bsize < LEAST_TO_START) rmSync(join(directory, NAME))
}

/**
 * Room on the disk for what must always work: deletes, expiries and what is written of them. A file that holds blocks for nothing is
 * given up when the database finds the disk full, and made again once there is room. Since others may be faster to take what it
 * gives up, the database's log has blocks of its own besides.
 */
export class Ballast {
  readonly #directory: string
  readonly #log: string
  readonly #file: string
  readonly #timer: NodeJS.Timeout

  /** In an open data directory with that database. */
  constructor(directory: string, database: string) {
    this.#directory = directory
    this.#log = `${database}-wal`
    this.#file = join(directory, NAME)
    this.#timer = setInterval(() => this.#keep(), LOOK_MS).unref()
    this.#keep()
  }

  /** Gives up the file. False: it was given up before, and there is nothing to try again with. */
  release(): boolean {
    if (!existsSync(this.#file)) return false
    rmSync(this.#file, { force: true })
    return true
  }

  /** Stops looking; what is held stays. */
  close(): void {
    clearInterval(this.#timer)
  }

  /** Failing is nothing: it is tried again. */
  #keep(): void {
    try {
      const { blocks, bsize } = statfsSync(this.#directory)
      const bytes = Math.floor(Math.min(BALLAST_BYTES, blocks * bsize * MOST_OF_DISK))
      const { freeBytes } = spaceOf(this.#directory)
      if (freeBytes < 2 * bytes) return
      if (existsSync(this.#log)) onFile(this.#log, 'r+', (fd) => reserveBlocks(fd, Math.min(LOG_BYTES, bytes)))
      if (existsSync(this.#file)) return
      try {
        onFile(this.#file, 'wx', (fd) => allocate(fd, bytes))
      } catch {
        rmSync(this.#file, { force: true })
      }
    } catch {
      // The next look may find more.
    }
  }
}

function onFile(path: string, flags: string, work: (fd: number) => void): void {
  const fd = openSync(path, flags, 0o600)
  try {
    work(fd)
  } finally {
    closeSync(fd)
  }
}
