import { createReadStream, statSync } from 'node:fs'
import { pipeline } from 'node:stream/promises'
import { parentPort, workerData } from 'node:worker_threads'
import { type ErrorCode, IceboxError } from '@icebox/model'
import { compressionOf, decompressor, MAGIC_BYTES } from './compression.ts'
import { DigestCheck } from './digest.ts'
import { readDirectory } from './directory.ts'
import { fromBytes } from './entry.ts'
import { readErofs } from './erofs.ts'
import { SpaceBudget } from './space.ts'
import { TarReader } from './tar.ts'
import { type Directory, type Inode, Tree } from './tree.ts'
import { treeDigest } from './tree-digest.ts'
import type { ArchiveFile, Unpacked, UnpackerOptions, UnpackJob, WorkerAnswer } from './unpack.ts'

const READ_CHUNK = 1_048_576
const PROGRESS_INTERVAL_MS = 100
const BLOCK = 4096

if (parentPort === null) throw new Error('this module is the body of a worker thread')
const port = parentPort
const options = workerData as UnpackerOptions
const say = (answer: WorkerAnswer) => port.postMessage(answer)
const tree = new Tree(
  fromBytes(Buffer.from(options.root)),
  new SpaceBudget(options.root, options.spaceFactor),
  options.digest,
)

port.on('message', (job: UnpackJob) => {
  perform(job).then(
    (unpacked) => say(unpacked === undefined ? { say: 'done' } : { say: 'done', unpacked }),
    (thrown: unknown) => {
      tree.abandon()
      const { code, message, details } = asIceboxError(thrown)
      say({ say: 'failed', code, message, details: { ...details } })
    },
  )
})

async function perform(job: UnpackJob): Promise<Unpacked | undefined> {
  if (job.do === 'finish') return finish()
  tree.beginLayer(job.do === 'layer')
  if (job.do === 'directory') {
    const { dev, ino } = statSync(options.root, { bigint: true })
    readDirectory(fromBytes(Buffer.from(job.path)), `${dev}:${ino}`, tree)
  } else if (job.do === 'erofs') readErofs(job.file, tree)
  else await unpack(job, job.do === 'archive')
  return undefined
}

/** Unpacks while reading, and only then knows the digests: the caller throws the tree away when this fails. */
async function unpack(archive: ArchiveFile, endMarked: boolean): Promise<void> {
  const plain = archive.diffId === undefined ? undefined : new DigestCheck(archive.diffId)
  const reader = new TarReader(tree)
  const take = async (chunks: AsyncIterable<Buffer>) => {
    for await (const chunk of chunks) {
      plain?.update(chunk)
      reader.write(chunk)
    }
    reader.finish(endMarked)
  }
  const stored = read(archive)
  try {
    const first = await stored.next()
    const start = first.done ? Buffer.alloc(0) : first.value
    async function* whole() {
      yield start
      yield* stored
    }
    const decompress = decompressor(compressionOf(start.subarray(0, MAGIC_BYTES)))
    if (decompress === undefined) await take(whole())
    else await pipeline(whole, decompress, take)
  } catch (thrown) {
    // Damaged bytes fail in many ways; that they are damaged is what a person has to know.
    for await (const _ of read(archive));
    throw thrown
  }
  plain?.finish(`the layer ${archive.file}, decompressed,`)
}

/** The bytes as stored. Ends with an error when they do not have their digest. */
async function* read({ file, offset = 0, length, digest }: ArchiveFile): AsyncGenerator<Buffer, void> {
  if (length === 0) return
  const end = length === undefined ? undefined : offset + length - 1
  const check = digest === undefined ? undefined : new DigestCheck(digest)
  let bytes = 0
  let saidAt = 0
  for await (const chunk of createReadStream(file, { start: offset, end, highWaterMark: READ_CHUNK })) {
    check?.update(chunk)
    bytes += chunk.length
    if (performance.now() - saidAt > PROGRESS_INTERVAL_MS) {
      saidAt = performance.now()
      say({ say: 'progress', bytes })
    }
    yield chunk
  }
  if (length !== undefined && bytes !== length)
    throw new IceboxError('ImageInvalid', `${file} is truncated`, { details: { file } })
  check?.finish(file)
  say({ say: 'progress', bytes })
}

function finish(): Unpacked {
  tree.finish()
  const unpacked = measure(tree.root)
  return options.digest ? { ...unpacked, digest: treeDigest(tree.root) } : unpacked
}

function measure(root: Directory): { bytes: number; entries: number } {
  const seen = new Set<Inode>()
  let bytes = 0
  let entries = 0
  const visit = (directory: Directory): void => {
    entries++
    bytes += BLOCK
    for (const child of directory.children.values())
      if (child.kind === 'directory') visit(child)
      else if (!seen.has(child.inode)) {
        seen.add(child.inode)
        entries++
        bytes += Math.ceil(child.inode.size / BLOCK) * BLOCK
      }
  }
  visit(root)
  return { bytes, entries }
}

/** What the kernel and zlib refuse, in the words of images. */
function asIceboxError(thrown: unknown): IceboxError {
  if (thrown instanceof IceboxError) return thrown
  const errno = thrown instanceof Error && 'code' in thrown ? String(thrown.code) : ''
  const message = thrown instanceof Error ? thrown.message : String(thrown)
  const as = (code: ErrorCode, why: string) => new IceboxError(code, `${why}: ${message}`, { cause: thrown })
  if (errno.startsWith('Z_') || errno.startsWith('ZSTD_') || errno === 'ERR_STREAM_PREMATURE_CLOSE')
    return as('ImageInvalid', 'the archive cannot be decompressed')
  if (errno === 'ENAMETOOLONG') return as('ImageInvalid', 'a path in the image is too long')
  if (errno === 'ENOENT') return as('NotFound', 'a file of the image is missing')
  if (errno === 'EPERM' || errno === 'EACCES')
    return as('Unavailable', 'images hold files of many owners, which only root can make')
  if (errno === 'EOPNOTSUPP') return as('Unavailable', `${options.root} cannot hold what the image has`)
  return IceboxError.from(thrown)
}
