import { randomUUID } from 'node:crypto'
import { readdir, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import {
  asSnapshotId,
  IceboxError,
  isId,
  type Progress,
  type SnapshotFault,
  type SnapshotId,
  type SpaceClaim,
} from '@icebox/model'
import { abortable, throwIfAborted } from './abortable.ts'
import { type ExtraFile, exportSnapshot } from './archive/export.ts'
import { type Incoming, receive } from './archive/import.ts'
import { Digester } from './digester.ts'
import { DRAFT_PREFIX, DraftDirectory } from './draft.ts'
import { isMissing, sync } from './durable.ts'
import { addDigests, checkBeforeRestore, verify } from './integrity.ts'
import type { Keyring } from './keyring.ts'
import type { Manifest, ManifestContent } from './manifest.ts'
import { claimSpace } from './space.ts'
import { BLOBS_DRAFT, FILES, readManifest, readStored, type Stored } from './stored.ts'

/** What the one who saves says; the engine adds the rest. */
export type ManifestInput = Omit<
  ManifestContent,
  'version' | 'id' | 'blobs' | 'needs' | 'parent' | 'importedFrom' | 'createdAt'
> & {
  /** The files in the draft's directory that a restore needs. */
  files: string[]
  parent?: SnapshotId
}

/** A snapshot being saved. */
export interface Draft {
  /** Empty, on the file system of the snapshots. */
  readonly directory: string
  /**
   * Makes it a snapshot: complete and durable once this resolves, absent when it throws, and one of the two after a crash.
   * Throws AlreadyExists, NoSpace, DeadlineExceeded (aborted in time).
   */
  commit(input: ManifestInput, signal: AbortSignal): Promise<Manifest>
  /** Nothing of it stays. Does nothing after `commit`. */
  discard(): Promise<void>
}

export interface OpenSnapshot {
  readonly manifest: Manifest
  /** Holds the files of the save and nothing else. Only to read. */
  readonly directory: string
  /** Sum of the lengths. */
  readonly bytes: number
  /** What they take on the disk: less than `bytes` when there are holes. */
  readonly allocatedBytes: number
}

const sum = (numbers: number[]): number => numbers.reduce((total, each) => total + each, 0)

function describe({ directory, manifest, blobs }: Stored): OpenSnapshot {
  return {
    manifest,
    directory: join(directory, FILES),
    bytes: sum(manifest.blobs.map((blob) => blob.bytes)),
    allocatedBytes: sum(manifest.blobs.map((blob) => blobs[blob.name]?.allocatedBytes ?? 0)),
  }
}

const REMOVED_PREFIX = 'removed-'
/** Empty files, each for a snapshot whose digests are still to be computed. */
const UNDIGESTED_PREFIX = 'undigested-'

/** The snapshots in one directory. Made by `openSnapshots`, one for each directory. */
export class Snapshots {
  readonly #root: string
  readonly #tmp: string
  readonly #keyring: Keyring
  readonly #digester = new Digester()
  /** With the room that each has claimed. */
  readonly #drafts = new Map<DraftDirectory, SpaceClaim>()
  readonly #opening = new Map<SnapshotId, Promise<OpenSnapshot>>()
  readonly #digesting = new Map<SnapshotId, Promise<ReadonlyMap<string, string>>>()
  readonly #closing = new AbortController()

  constructor(config: { directory: string; tmp: string; keyring: Keyring }) {
    this.#root = config.directory
    this.#tmp = config.tmp
    this.#keyring = config.keyring
  }

  /**
   * A place to save into. Throws NoSpace unless `expectedBytes` fit beside what others have yet to write, AlreadyExists. `urgent`: it may
   * take of the reserve, since it ends the growth of something.
   */
  async begin(
    id: SnapshotId,
    expectedBytes: number,
    signal: AbortSignal,
    { urgent = false }: { urgent?: boolean } = {},
  ): Promise<Draft> {
    const draft = await this.#draft(id, expectedBytes, urgent, signal)
    return {
      directory: draft.files,
      commit: (input, aborted) => this.#commit(draft, input, aborted),
      discard: () => this.#discard(draft),
    }
  }

  /**
   * A snapshot to restore from, checked: manifest, signature, presence, lengths, inodes and times, and digests where those differ.
   * Throws NotFound, SnapshotCorrupt, SnapshotUntrusted, SnapshotIncompatible (written by a newer Icebox). Whether it can run here: see `gate`.
   */
  async open(id: SnapshotId, signal: AbortSignal): Promise<OpenSnapshot> {
    // Those who come while it is being checked share the answer: 20 forks of a copied snapshot read it once.
    let opening = this.#opening.get(id)
    if (!opening) {
      opening = this.#with(id, () => this.#check(id)).finally(() => this.#opening.delete(id))
      this.#opening.set(id, opening)
    }
    return abortable(opening, signal)
  }

  /** All snapshots, without looking into them. */
  async list(signal: AbortSignal): Promise<SnapshotId[]> {
    throwIfAborted(signal)
    return this.#ids()
  }

  /** What its records say, without looking at its bytes. `damaged`: they cannot be read. */
  async find(id: SnapshotId, signal: AbortSignal): Promise<OpenSnapshot | 'damaged' | undefined> {
    throwIfAborted(signal)
    try {
      return describe(await this.#stored(id))
    } catch {
      return (await this.#has(id)) ? 'damaged' : undefined
    }
  }

  /**
   * Removes a snapshot, whole or not at all; one that is not there is removed already. Machines that were restored from it keep
   * the files they have open.
   */
  async remove(id: SnapshotId, signal: AbortSignal): Promise<void> {
    throwIfAborted(signal)
    // Renamed to a name that is not there, which needs no room: a full disk is when it matters most.
    const trash = join(this.#tmp, `${REMOVED_PREFIX}${id}-${randomUUID()}`)
    try {
      await rename(this.#path(id), trash)
      await sync(this.#root)
    } catch (thrown) {
      if (!isMissing(thrown)) throw thrown
    } finally {
      await rm(trash, { recursive: true, force: true })
      await rm(this.#undigested(id), { force: true })
    }
  }

  /** The digests of its blobs, by name; waits until they are computed. Throws NotFound, SnapshotCorrupt. */
  async digest(id: SnapshotId, signal: AbortSignal): Promise<ReadonlyMap<string, string>> {
    return abortable(this.#digest(id), signal)
  }

  /** Rereads every byte from the disk. Empty: all is well. Throws NotFound. */
  async verify(id: SnapshotId, signal: AbortSignal): Promise<SnapshotFault[]> {
    // Without a digest there is nothing to compare with. What hinders it is found again below.
    await this.digest(id, signal).catch(() => throwIfAborted(signal))
    return this.#with(id, () => verify(this.#path(id), id, this.#keyring, signal))
  }

  /**
   * Writes one tar file with the snapshot and further files, complete and durable once this resolves.
   * Throws NotFound, SnapshotCorrupt, AlreadyExists (the file), InvalidArgument (it cannot be written there), NoSpace,
   * NotImplemented (it needs blobs of others).
   */
  async exportTo(
    id: SnapshotId,
    file: string,
    extras: ExtraFile[],
    progress: Progress,
    signal: AbortSignal,
  ): Promise<void> {
    await this.open(id, signal)
    await this.digest(id, signal)
    const stored = await this.#stored(id)
    await exportSnapshot(stored, file, extras, this.#keyring, progress, signal)
  }

  /**
   * Reads what `exportTo` wrote into a draft, and checks all of it. Nothing is accepted before `commit`, which gives it the
   * new id. Throws InvalidArgument (not an export, or one with anything unexpected in it), SnapshotCorrupt (damaged),
   * SnapshotUntrusted (signed by nobody, or by a key that is not trusted), SnapshotIncompatible (of a newer Icebox),
   * NoSpace, AlreadyExists.
   */
  async importFrom(file: string, newId: SnapshotId, progress: Progress, signal: AbortSignal): Promise<Incoming> {
    const begin = (bytes: number) => this.#draft(newId, bytes, false, signal)
    return receive(file, this.#tmp, begin, (draft) => this.#discard(draft), this.#keyring, progress, signal)
  }

  /** Runs work that writes elsewhere on the file system of the snapshots, with the room set aside until it ends. Throws NoSpace. */
  async withSpace<R>(bytes: number, what: string, work: () => Promise<R>): Promise<R> {
    using _ = claimSpace(this.#root, bytes, what)
    return await work()
  }

  /** After a crash: removes what was half written or half removed, and computes digests that are missing. Called once, first. */
  async recover(signal: AbortSignal): Promise<void> {
    for (const name of await readdir(this.#tmp)) {
      throwIfAborted(signal)
      const path = join(this.#tmp, name)
      if (name.startsWith(DRAFT_PREFIX) || name.startsWith(REMOVED_PREFIX))
        await rm(path, { recursive: true, force: true })
      if (!name.startsWith(UNDIGESTED_PREFIX)) continue
      const id = name.slice(UNDIGESTED_PREFIX.length)
      if (isId(id) && (await this.#has(asSnapshotId(id)))) this.#digestLater(asSnapshotId(id))
      else await rm(path, { force: true })
    }
  }

  /**
   * Waits for digests under way: with them the data directory may be copied elsewhere. When the signal aborts it leaves
   * them to the next `recover`. Afterwards nothing touches the directories.
   */
  async close(signal: AbortSignal): Promise<void> {
    await abortable(Promise.allSettled(this.#digesting.values()), signal).catch(() => {})
    this.#closing.abort()
    await this.#digester.close()
    await Promise.allSettled([...this.#digesting.values(), ...this.#opening.values()])
  }

  #path(id: SnapshotId): string {
    return join(this.#root, id)
  }

  #undigested(id: SnapshotId): string {
    return join(this.#tmp, `${UNDIGESTED_PREFIX}${id}`)
  }

  #manifest(id: SnapshotId): Promise<Manifest> {
    return readManifest(this.#path(id), id, this.#keyring)
  }

  #stored(id: SnapshotId): Promise<Stored> {
    return readStored(this.#path(id), id, this.#keyring)
  }

  async #ids(): Promise<SnapshotId[]> {
    return (await readdir(this.#root)).filter((name): name is SnapshotId => isId(name)).sort()
  }

  async #has(id: SnapshotId): Promise<boolean> {
    // Names that are no ids are no snapshots, whatever is there under them.
    if (!isId(id)) return false
    return stat(this.#path(id)).then(
      () => true,
      (thrown) => {
        if (isMissing(thrown)) return false
        throw thrown
      },
    )
  }

  async #mustHave(id: SnapshotId): Promise<void> {
    if (!(await this.#has(id)))
      throw new IceboxError('NotFound', `there is no snapshot ${id}`, { details: { snapshot: id } })
  }

  async #draft(id: SnapshotId, expectedBytes: number, urgent: boolean, signal: AbortSignal): Promise<DraftDirectory> {
    throwIfAborted(signal)
    if (await this.#has(id)) throw new IceboxError('AlreadyExists', `snapshot ${id} exists already`)
    let written = () => 0
    const claim = claimSpace(this.#root, expectedBytes, 'the snapshot', { written: () => written(), urgent })
    try {
      const draft = await DraftDirectory.make(id, this.#tmp, this.#path(id), this.#keyring)
      written = () => draft.allocatedBytes()
      this.#drafts.set(draft, claim)
      return draft
    } catch (thrown) {
      claim.release()
      throw IceboxError.from(thrown)
    }
  }

  async #discard(draft: DraftDirectory): Promise<void> {
    await draft.discard()
    this.#forget(draft)
  }

  async #commit(draft: DraftDirectory, input: ManifestInput, signal: AbortSignal): Promise<Manifest> {
    const { files, parent, ...given } = input
    try {
      const content = {
        ...given,
        needs: [],
        ...(parent && { parent: await this.#parent(parent) }),
        createdAt: new Date().toISOString(),
      }
      // Before the snapshot is there: whoever finds it later has not to look into all to know which lack digests.
      await writeFile(this.#undigested(draft.id), '', { mode: 0o600 })
      const manifest = await draft.seal(content, files, new Map(), signal)
      this.#digestLater(manifest.id)
      return manifest
    } catch (thrown) {
      await draft.discard()
      await rm(this.#undigested(draft.id), { force: true })
      throw IceboxError.from(thrown)
    } finally {
      this.#forget(draft)
    }
  }

  #forget(draft: DraftDirectory): void {
    this.#drafts.get(draft)?.release()
    this.#drafts.delete(draft)
  }

  async #parent(id: SnapshotId): Promise<{ id: SnapshotId; manifest?: string }> {
    const manifest = await this.#manifest(id).catch(() => undefined)
    return manifest ? { id, manifest: manifest.checksum } : { id }
  }

  /** What fails because the snapshot is not there, or was removed meanwhile, says NotFound. */
  async #with<T>(id: SnapshotId, work: () => Promise<T>): Promise<T> {
    await this.#mustHave(id)
    try {
      return await work()
    } catch (thrown) {
      await this.#mustHave(id)
      throw IceboxError.from(thrown)
    }
  }

  async #check(id: SnapshotId): Promise<OpenSnapshot> {
    const stored = await this.#stored(id)
    for (const need of stored.manifest.needs)
      if (!(await this.#has(need.snapshot)))
        throw new IceboxError(
          'SnapshotCorrupt',
          `snapshot ${id} needs a blob of snapshot ${need.snapshot}, which is gone`,
        )
    await checkBeforeRestore(stored, this.#keyring, this.#closing.signal)
    return describe(stored)
  }

  #digest(id: SnapshotId): Promise<ReadonlyMap<string, string>> {
    const running = this.#digesting.get(id)
    if (running) return running
    const compute = async () => {
      await rm(join(this.#path(id), BLOBS_DRAFT), { force: true })
      const digests = await addDigests(await this.#stored(id), this.#digester, this.#keyring)
      await rm(this.#undigested(id), { force: true })
      return digests
    }
    const digesting = this.#with(id, compute).finally(() => this.#digesting.delete(id))
    this.#digesting.set(id, digesting)
    return digesting
  }

  /** What goes wrong here is said by whoever needs the digests. */
  #digestLater(id: SnapshotId): void {
    this.#digest(id).catch(() => {})
  }
}

/** `directory` holds the snapshots, `tmp` what is on its way; both on one file system. */
export const openSnapshots = (config: { directory: string; tmp: string; keyring: Keyring }): Snapshots =>
  new Snapshots(config)
