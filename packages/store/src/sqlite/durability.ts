import { type FileHandle, open } from 'node:fs/promises'
import { IceboxError } from '@icebox/model'

/**
 * Syncs the write-ahead log off the main thread. A sync can take 100 ms and more while snapshots are being written, and
 * inside SQLite's commit it would stop everything else the process does. Writers that come while one sync runs share the next.
 */
export class Durability {
  readonly #log: FileHandle
  readonly #committed: () => number
  #durable: number
  #running: Promise<void> | undefined
  #failure: IceboxError | undefined

  private constructor(log: FileHandle, committed: () => number) {
    this.#log = log
    this.#committed = committed
    this.#durable = committed()
  }

  /** `committed` says the newest version that SQLite has committed. */
  static async open(log: string, committed: () => number): Promise<Durability> {
    return new Durability(await open(log, 'r+'), committed)
  }

  /**
   * Resolves once version `version` survives a loss of power. After a failed sync nothing can be promised about what the
   * disk holds: this and every later call throw Internal until the store is opened again.
   */
  async upTo(version: number): Promise<void> {
    while (this.#durable < version) {
      if (this.#failure) throw this.#failure
      this.#running ??= this.#sync(this.#committed())
      await this.#running
    }
  }

  async #sync(version: number): Promise<void> {
    try {
      await this.#log.datasync()
      this.#durable = version
    } catch (thrown) {
      this.#failure = new IceboxError('Internal', 'the database could not be written to the disk', { cause: thrown })
    } finally {
      this.#running = undefined
    }
  }

  async close(): Promise<void> {
    await this.upTo(this.#committed())
    await this.#log.close()
  }
}
