import { constants } from 'node:fs'
import { copyFile, mkdir, readdir, rename, rm, stat } from 'node:fs/promises'
import { dirname, join, resolve as resolvePath } from 'node:path'
import {
  Budget,
  Budgets,
  DEFAULT_PROJECT,
  FairTurns,
  IceboxError,
  type ImageUpload,
  type NodeImage,
  type Principal,
  type Progress,
} from '@icebox/model'
import { allocatedBytes, claimSpace, renameSynced, sync, writeSynced } from '@icebox/snapshot'
import { Turns } from '../turns.ts'
import { assemble } from './assemble.ts'
import { hexOf } from './digest.ts'
import { checkErofs, type FileAttribute, readAttributes } from './erofs/read.ts'
import { makeExt4 } from './ext4-output.ts'
import { inWords } from './local.ts'
import { findFile, type Opening, openSource, openUpload } from './open.ts'
import {
  EROFS_NAME,
  type ImageRecord,
  isMadeOf,
  type Pull,
  pulledAt,
  pullOf,
  RECORD_NAME,
  readRecord,
  readRecords,
  toNodeImage,
  withPull,
} from './record.ts'
import { parseReference, type Reference } from './reference.ts'
import { Scratch } from './scratch.ts'
import { SharedWork } from './shared-work.ts'
import { type ImageSource, localPart } from './source.ts'
import { type SourcePolicy, type SourceSettings, sourcePolicy } from './source-policy.ts'

/** ext4 files made at the same time: more only compete for the same disk. */
const PARALLEL_EXT4 = 2
/** Pulls, at once and waiting. One whose registry is slow keeps its place until it ends. */
const PULLS = { each: 2, inAll: 8, eachWaiting: 32, inAllWaiting: 256 }
/** Bytes of manifests and configs that are kept while their images are made. */
const DOCUMENT_BYTES = { each: 33_554_432, inAll: 134_217_728 }
/** Who calls the store itself, on this machine. */
const INSTALLATION: Principal = { project: DEFAULT_PROJECT, installation: true }
const WRITE_DEADLINE_MS = 60_000

/** The images of one node, each kept as an EROFS file under its digest. One process uses a store at a time. */
export interface ImageStore {
  /**
   * Asks where the reference comes from what it means now, and makes that present. Joins an equal pull under way.
   * Throws `InvalidArgument`, `NotFound`, `ImageInvalid`, `PlatformUnsupported`, `RegistryUnreachable`, `NoSpace`, `Unavailable`.
   */
  pull(reference: string, progress: Progress, signal: AbortSignal): Promise<NodeImage>
  /**
   * The same on behalf of somebody, who has a share of the turns. Throws besides `Forbidden` for what may not be made for them, and
   * `TooManyRequests`. They are told no reason why a registry cannot be used: it would say what is in the server's network.
   */
  pullAs(by: Principal, reference: string, progress: Progress, signal: AbortSignal): Promise<NodeImage>
  /** Makes an image of a file that a client has sent. Throws what `pullAs` throws. */
  importUpload(by: Principal, upload: ImageUpload, progress: Progress, signal: AbortSignal): Promise<NodeImage>
  /** What is here already: by digest, its hex, or a reference as last pulled. Asks nobody. Throws `InvalidArgument`. */
  resolve(reference: string): Promise<NodeImage | undefined>
  /** Newest pull first. */
  list(signal: AbortSignal): Promise<NodeImage[]>
  /** Where the file of a present image is. */
  path(digest: string, type: 'erofs'): string
  /**
   * The extended attributes of a present image's files; most images have none. They are not in the EROFS file as gVisor sees it,
   * which refuses files that have any: whoever runs the image there must set them. Throws `NotFound`.
   */
  xattrs(digest: string): Promise<FileAttribute[]>
  /**
   * Makes an ext4 file of a present image; without a size, of one that leaves it some room. Gives the size of the file and the
   * digest of the image. Throws `NotFound`, `InvalidArgument` (too small), `NoSpace`, `ImageInvalid`.
   */
  ext4(
    digest: string,
    output: string,
    options: { sizeBytes?: number },
    progress: Progress,
    signal: AbortSignal,
  ): Promise<{ sizeBytes: number; digest: string }>
  /**
   * Takes in a copy of an EROFS file that another node made of the image. That its content is what the digest stands for
   * cannot be told from the file: whoever trusts the file must have checked it. Throws `NotFound`, `ImageInvalid`, `NoSpace`.
   */
  importErofs(file: string, image: NodeImage, signal: AbortSignal): Promise<NodeImage>
  /** Removing what is not there succeeds. */
  remove(digest: string, signal: AbortSignal): Promise<void>
  /** Removes what a crash left half-written. Call before anything else. */
  recover(signal: AbortSignal): Promise<void>
}

/** Throws `TypeError` for settings that mean nothing. */
export function openImageStore(config: {
  directory: string
  cacheDirectory: string
  sources?: SourceSettings
}): ImageStore {
  const { directory, cacheDirectory, sources = {} } = config
  return new DirectoryImageStore(resolvePath(directory), resolvePath(cacheDirectory), sources)
}

class DirectoryImageStore implements ImageStore {
  readonly #directory: string
  readonly #cacheDirectory: string
  readonly #temporary: string
  readonly #pulls = new SharedWork<ImageRecord>()
  /** By project and digest. */
  readonly #digestTurns = new FairTurns('pulls of this image', { each: 1 })
  readonly #pullTurns = new FairTurns('pulls of this project', PULLS)
  readonly #documents = new Budgets(
    (project) => `the image documents of project ${project}`,
    DOCUMENT_BYTES.each,
    new Budget('the image documents of all projects', DOCUMENT_BYTES.inAll),
  )
  readonly #ext4Turns = new Turns(PARALLEL_EXT4)
  readonly #settings: SourceSettings
  readonly #policy: SourcePolicy
  /** Records are read, changed and written by one at a time. */
  readonly #writing = new Turns(1)

  constructor(directory: string, cacheDirectory: string, settings: SourceSettings) {
    this.#settings = settings
    this.#policy = sourcePolicy(settings)
    this.#directory = directory
    this.#cacheDirectory = cacheDirectory
    this.#temporary = join(directory, 'tmp')
  }

  pull(reference: string, progress: Progress, signal: AbortSignal): Promise<NodeImage> {
    return this.pullAs(INSTALLATION, reference, progress, signal)
  }

  async pullAs(by: Principal, reference: string, progress: Progress, signal: AbortSignal): Promise<NodeImage> {
    const parsed = parseReference(reference)
    const open = (opening: Opening, tell: Progress, until: AbortSignal) => openSource(parsed, opening, tell, until)
    const work = (tell: Progress, until: AbortSignal) => this.#pull(by, parsed.canonical, open, tell, until)
    // Of others one gets neither what one may not have oneself nor their place in the queue.
    const key = JSON.stringify([by.project, by.installation, parsed.canonical])
    try {
      return toNodeImage(await this.#pulls.run(key, work, progress, signal))
    } catch (thrown) {
      throw this.#told(IceboxError.from(thrown), parsed, by)
    }
  }

  async importUpload(by: Principal, upload: ImageUpload, progress: Progress, signal: AbortSignal): Promise<NodeImage> {
    const open = (opening: Opening, tell: Progress, until: AbortSignal) => openUpload(upload, opening, tell, until)
    return toNodeImage(await this.#pull(by, upload.reference, open, progress, signal))
  }

  /** What whoever pulls is told of a failure. */
  #told(error: IceboxError, reference: Reference, by: Principal): IceboxError {
    if (reference.kind !== 'registry' || error.code !== 'RegistryUnreachable') return error
    this.#settings.onUnreachable?.(reference.registry, error)
    if (by.installation) return error
    return new IceboxError(
      'RegistryUnreachable',
      `${reference.registry} cannot be used: it does not answer, is no registry, or does not let this project pull`,
      {
        remedy: 'Check the name of the image. The log of the server, which the operator has, says more.',
        details: { registry: reference.registry },
      },
    )
  }

  async resolve(reference: string): Promise<NodeImage | undefined> {
    const hex = /^(?:sha(?:256|512):)?([0-9a-f]{64}|[0-9a-f]{128})$/.exec(reference)?.[1]
    if (hex !== undefined) {
      const record = await readRecord(this.#directory, hex)
      return record && toNodeImage(record)
    }
    const { canonical } = parseReference(reference)
    const records = await readRecords(this.#directory, AbortSignal.timeout(60_000))
    const [newest] = records
      .flatMap((record) => ({ record, at: pulledAt(record, canonical) ?? '' }))
      .filter(({ at }) => at !== '')
      .sort((a, b) => (a.at < b.at ? 1 : -1))
    return newest && { ...toNodeImage(newest.record), reference: canonical }
  }

  async list(signal: AbortSignal): Promise<NodeImage[]> {
    return (await readRecords(this.#directory, signal)).map(toNodeImage)
  }

  path(digest: string, _type: 'erofs'): string {
    return join(this.#directory, hexOf(digest), EROFS_NAME)
  }

  async xattrs(digest: string): Promise<FileAttribute[]> {
    await this.#find(digest)
    return readAttributes(this.path(digest, 'erofs'))
  }

  async ext4(
    digest: string,
    output: string,
    options: { sizeBytes?: number },
    progress: Progress,
    signal: AbortSignal,
  ): Promise<{ sizeBytes: number; digest: string }> {
    const record = await this.#find(digest)
    const file = this.path(digest, 'erofs')
    const source: ImageSource = {
      digest,
      config: record.config,
      parts: [localPart(record.sizeBytes, { do: 'erofs', file })],
    }
    const make = () =>
      this.#inScratch((directory) => makeExt4(source, resolvePath(output), options, directory, progress, signal))
    const { sizeBytes } = await this.#ext4Turns.run(make, signal)
    return { digest, sizeBytes }
  }

  async importErofs(file: string, image: NodeImage, signal: AbortSignal): Promise<NodeImage> {
    const record: ImageRecord = {
      version: 1,
      digest: image.digest,
      references: [pullOf(image.reference)],
      config: image.config,
      sizeBytes: image.sizeBytes,
    }
    const make = () =>
      this.#inScratch(async (directory) => {
        const copy = join(directory, EROFS_NAME)
        const { size } = await findFile(file)
        using _ = claimSpace(directory, size, 'the image', { written: () => allocatedBytes(copy) })
        await copyFile(file, copy, constants.COPYFILE_FICLONE)
        signal.throwIfAborted()
        checkErofs(copy)
        await sync(copy)
        return this.#install(copy, { ...record, sizeBytes: (await stat(copy)).size })
      })
    const present = await readRecord(this.#directory, hexOf(image.digest))
    return toNodeImage(present ?? (await make()))
  }

  async remove(digest: string, signal: AbortSignal): Promise<void> {
    const hex = hexOf(digest)
    signal.throwIfAborted()
    await this.#inScratch(async (directory) => {
      // Gone under its name at once, so that nobody sees a part of it.
      await rename(join(this.#directory, hex), join(directory, hex)).catch((thrown: unknown) => {
        if (!(thrown instanceof Error && 'code' in thrown && thrown.code === 'ENOENT')) throw thrown
      })
      await sync(this.#directory)
    })
  }

  async recover(signal: AbortSignal): Promise<void> {
    await rm(this.#temporary, { recursive: true, force: true })
    await mkdir(this.#temporary, { recursive: true })
    for (const name of await readdir(this.#directory)) {
      signal.throwIfAborted()
      const hex = /^[0-9a-f]+$/.test(name)
      if (hex && (await readRecord(this.#directory, name).catch(() => undefined)) === undefined)
        await rm(join(this.#directory, name), { recursive: true, force: true })
    }
  }

  async #find(digest: string): Promise<ImageRecord> {
    const record = await readRecord(this.#directory, hexOf(digest))
    if (record !== undefined) return record
    throw new IceboxError('NotFound', `the image ${digest} is not on this node`, { details: { digest } })
  }

  #pull(
    by: Principal,
    reference: string,
    open: (opening: Opening, progress: Progress, signal: AbortSignal) => Promise<ImageSource>,
    progress: Progress,
    signal: AbortSignal,
  ): Promise<ImageRecord> {
    const called = new Map<string, string>()
    const work = () =>
      this.#inScratch(async (directory) => {
        using held = this.#documents.of(by.project).reserve(0)
        await using opened = new AsyncDisposableStack()
        const cacheDirectory = this.#cacheDirectory
        const opening = { by, policy: this.#policy, cacheDirectory, directory, held, opened, called }
        const source = await open(opening, progress, signal)
        const make = async () =>
          (await this.#present(source, signal)) ?? this.#make(source, reference, directory, progress, signal)
        // Of two pulls that mean the same image, one makes it and the other finds it; but nobody waits for another project's registry.
        const { digest } = source
        const made =
          digest === undefined ? await make() : await this.#digestTurns.run(`${by.project} ${digest}`, make, signal)
        return this.#remember(made, pullOf(reference, source.origin))
      }).catch((thrown: unknown) => {
        throw inWords(thrown, called)
      })
    return this.#pullTurns.run(by.project, work, signal)
  }

  async #present({ digest, origin }: ImageSource, signal: AbortSignal): Promise<ImageRecord | undefined> {
    if (digest !== undefined) return readRecord(this.#directory, hexOf(digest))
    if (origin === undefined) return undefined
    return (await readRecords(this.#directory, signal)).find((record) => isMadeOf(record, origin))
  }

  async #make(
    source: ImageSource,
    reference: string,
    directory: string,
    progress: Progress,
    signal: AbortSignal,
  ): Promise<ImageRecord> {
    const file = join(directory, EROFS_NAME)
    const made = await assemble(source, { format: 'erofs' }, file, directory, progress, signal)
    signal.throwIfAborted()
    return this.#install(file, { version: 1, ...made, references: [pullOf(reference, source.origin)] })
  }

  /** Puts a durable EROFS file of the scratch directory under its final name, with its record. */
  async #install(file: string, record: ImageRecord): Promise<ImageRecord> {
    const whole = join(dirname(file), 'image')
    await mkdir(whole)
    await rename(file, join(whole, EROFS_NAME))
    await writeSynced(join(whole, RECORD_NAME), serialise(record))
    await sync(whole)
    try {
      await renameSynced(whole, join(this.#directory, hexOf(record.digest)))
    } catch (thrown) {
      // A tree whose digest is known only now may have been here already, or been made by another pull meanwhile.
      const present = await readRecord(this.#directory, hexOf(record.digest))
      if (present === undefined) throw thrown
      return present
    }
    return record
  }

  /** Notes that a reference means this image now. */
  async #remember({ digest }: ImageRecord, pull: Pull): Promise<ImageRecord> {
    const write = () =>
      this.#inScratch(async (directory) => {
        const record = await readRecord(this.#directory, hexOf(digest))
        if (record === undefined)
          throw new IceboxError('NotFound', `the image ${digest} was removed while it was being pulled`)
        const changed = withPull(record, pull)
        const file = join(directory, RECORD_NAME)
        await writeSynced(file, serialise(changed))
        await renameSynced(file, join(this.#directory, hexOf(digest), RECORD_NAME))
        return changed
      })
    return this.#writing.run(write, AbortSignal.timeout(WRITE_DEADLINE_MS))
  }

  async #inScratch<T>(work: (directory: string) => Promise<T>): Promise<T> {
    const scratch = await Scratch.create(this.#temporary)
    try {
      return await work(scratch.path)
    } catch (thrown) {
      throw IceboxError.from(thrown)
    } finally {
      await scratch.remove()
    }
  }
}

const serialise = (record: ImageRecord): string => `${JSON.stringify(record, null, 2)}\n`
