import { readdirSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, rename, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { IceboxError, type SnapshotId } from '@icebox/model'
import { throwIfAborted } from './abortable.ts'
import { type BlobFacts, encodeBlobs, observe } from './blob-facts.ts'
import { sync } from './durable.ts'
import type { Keyring } from './keyring.ts'
import { decodeManifest, encodeManifest, type Manifest, type ManifestContent } from './manifest.ts'
import { allocatedBytes } from './space.ts'
import { BLOBS, FILES, MANIFEST } from './stored.ts'

/** Temporary directories that a crash leaves behind; `recover` removes them. */
export const DRAFT_PREFIX = 'snapshot-'

/** A snapshot being written, in a temporary directory. */
export class DraftDirectory {
  readonly id: SnapshotId
  /** Where the blobs go. */
  readonly files: string
  readonly #path: string
  readonly #target: string
  readonly #keyring: Keyring

  private constructor(id: SnapshotId, path: string, target: string, keyring: Keyring) {
    this.id = id
    this.#path = path
    this.files = join(path, FILES)
    this.#target = target
    this.#keyring = keyring
  }

  static async make(id: SnapshotId, tmp: string, target: string, keyring: Keyring): Promise<DraftDirectory> {
    const path = await mkdtemp(join(tmp, `${DRAFT_PREFIX}${id}-`))
    const draft = new DraftDirectory(id, path, target, keyring)
    await mkdir(draft.files, { mode: 0o700 })
    return draft
  }

  /** Bytes on the disk so far: of a few files, in one step, so that room is claimed and counted without others in between. */
  allocatedBytes(): number {
    return namesIn(this.files).reduce((sum, name) => sum + allocatedBytes(join(this.files, name)), 0)
  }

  /**
   * Makes a snapshot of the named files, durable when this resolves; files not named are removed. The order makes that a
   * crash, or a loss of power, at any moment leaves it complete or absent: files, records and directories synced, rename, both
   * parents synced. On failure, and when the signal aborts before the rename, the draft is gone.
   */
  async seal(
    content: Omit<ManifestContent, 'version' | 'id' | 'blobs'>,
    files: string[],
    digests: ReadonlyMap<string, string>,
    signal: AbortSignal,
  ): Promise<Manifest> {
    let renamed = false
    try {
      for (const name of await readdir(this.files))
        if (!files.includes(name)) await rm(join(this.files, name), { recursive: true })
      const facts = await Promise.all([...files].sort().map(async (name) => ({ name, ...(await this.#observe(name)) })))
      const blobs: Record<string, BlobFacts> = {}
      for (const { name, ...fact } of facts) {
        const digest = digests.get(name)
        blobs[name] = digest ? { ...fact, digest } : fact
      }
      const text = encodeManifest(
        { ...content, version: 1, id: this.id, blobs: facts.map(({ name, bytes }) => ({ name, bytes })) },
        this.#keyring,
      )
      const manifest = decodeManifest(text, this.#keyring)
      const records = {
        [MANIFEST]: text,
        [BLOBS]: encodeBlobs({ version: 1, manifest: manifest.checksum, blobs }, this.#keyring),
      }
      for (const [name, record] of Object.entries(records))
        await writeFile(join(this.#path, name), record, { mode: 0o600, flag: 'wx' })
      // All at once, so that the file system can write them in few rounds: the rename alone must come after.
      await Promise.all([
        ...facts.map(({ name }) => sync(join(this.files, name))),
        ...Object.keys(records).map((name) => sync(join(this.#path, name))),
        sync(this.files),
        sync(this.#path),
      ])
      throwIfAborted(signal)
      await rename(this.#path, this.#target)
      renamed = true
      await Promise.all([sync(dirname(this.#target)), sync(dirname(this.#path))])
      return manifest
    } catch (thrown) {
      await rm(renamed ? this.#target : this.#path, { recursive: true, force: true })
      if (thrown instanceof Error && 'code' in thrown && (thrown.code === 'ENOTEMPTY' || thrown.code === 'EEXIST'))
        throw new IceboxError('AlreadyExists', `snapshot ${this.id} exists already`, { cause: thrown })
      throw IceboxError.from(thrown)
    }
  }

  /** Nothing of it stays. */
  async discard(): Promise<void> {
    await rm(this.#path, { recursive: true, force: true })
  }

  async #observe(name: string): Promise<BlobFacts> {
    const facts = await observe(join(this.files, name))
    if (!facts) throw new IceboxError('Internal', `the save left no file ${name}`)
    return facts
  }
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory)
  } catch {
    return []
  }
}
