import { closeSync, createReadStream, fsyncSync, ftruncateSync, openSync, statSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { type ErrorCode, IceboxError } from '@icebox/model'
import { compressionOf, decompressor, MAGIC_BYTES } from './compression.ts'
import { ContentFile } from './contents.ts'
import { DigestCheck, uuidOf } from './digest.ts'
import { fromBytes } from './entry.ts'
import { EROFS_RESERVED_BLOCKS, writeErofs } from './erofs/write.ts'
import { ext4ReservedBlocks, writeExt4 } from './ext4/write.ts'
import { ImageMemory } from './image-memory.ts'
import { SpaceBudget } from './space-budget.ts'
import { TarReader } from './tar.ts'
import { Tree } from './tree.ts'
import { treeDigest } from './tree-digest.ts'
import type { ArchiveFile, ProcessAnswer, ProcessOptions, ProcessRequest, Unpacked } from './unpack.ts'

const READ_CHUNK = 1_048_576
const PROGRESS_INTERVAL_MS = 100

if (process.send === undefined) throw new Error('this module is the body of a process that unpacks an image')
const { product, output, digest, memoryBytes }: ProcessOptions = JSON.parse(process.argv[2] ?? '')
const say = (answer: ProcessAnswer) => process.send?.(answer)

// When memory runs out, the kernel ends this process before any other.
writeFileSync('/proc/self/oom_score_adj', '1000')
const fd = openSync(output, 'wx+', 0o644)
const reserved = product.format === 'ext4' ? ext4ReservedBlocks(product.sizeBytes) : EROFS_RESERVED_BLOCKS
const contents = new ContentFile(fd, reserved, new SpaceBudget(dirname(output)))
const tree = new Tree(contents, digest, new ImageMemory(memoryBytes))

process.on('disconnect', () => process.exit(1))
process.on('message', (request: ProcessRequest) => {
  perform(request).then(
    (unpacked) => say(unpacked === undefined ? { say: 'done' } : { say: 'done', unpacked }),
    (thrown: unknown) => {
      const { code, message, remedy, details } = asIceboxError(thrown)
      say({ say: 'failed', code, message, remedy, details: { ...details } })
    },
  )
})

async function perform(request: ProcessRequest): Promise<Unpacked | undefined> {
  if (request.do === 'finish') return finish(request.digest)
  tree.beginLayer(request.do === 'layer')
  // What only some images need is loaded when it is needed: the process starts sooner.
  if (request.do === 'directory') {
    const { readDirectory } = await import('./directory.ts')
    const { dev, ino } = statSync(output, { bigint: true })
    readDirectory(fromBytes(Buffer.from(request.path)), `${dev}:${ino}`, tree)
  } else if (request.do === 'erofs') {
    const { readErofs } = await import('./erofs/read.ts')
    readErofs(request.file, tree)
  } else if (request.do === 'user') {
    const { addUser } = await import('./user.ts')
    addUser(tree, contents, request.name)
  } else await unpack(request, request.do === 'archive')
  return undefined
}

function finish(known: string | undefined): Unpacked {
  const image = known ?? treeDigest(tree.root)
  const uuid = uuidOf(image)
  const sizeBytes =
    product.format === 'ext4'
      ? writeExt4(tree.root, contents, uuid, product.sizeBytes)
      : writeErofs(tree.root, contents, uuid)
  contents.flush()
  if (product.format === 'ext4') ftruncateSync(fd, sizeBytes)
  fsyncSync(fd)
  closeSync(fd)
  return { sizeBytes, digest: image }
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

/** What the kernel and zlib refuse, in the words of images. */
function asIceboxError(thrown: unknown): IceboxError {
  if (thrown instanceof IceboxError) return thrown
  const errno = thrown instanceof Error && 'code' in thrown ? String(thrown.code) : ''
  const message = thrown instanceof Error ? thrown.message : String(thrown)
  const as = (code: ErrorCode, why: string) => new IceboxError(code, `${why}: ${message}`, { cause: thrown })
  if (errno.startsWith('Z_') || errno.startsWith('ZSTD_') || errno === 'ERR_STREAM_PREMATURE_CLOSE')
    return as('ImageInvalid', 'the archive cannot be decompressed')
  if (errno === 'ENOENT') return as('NotFound', 'a file of the image is missing')
  if (errno === 'EPERM' || errno === 'EACCES') return as('Unavailable', 'a file of the image may not be read')
  return IceboxError.from(thrown)
}
