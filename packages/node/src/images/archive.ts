import { createReadStream, createWriteStream } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { join, posix } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { IceboxError } from '@icebox/model'
import { z } from 'zod'
import { compressionOf, decompressor, MAGIC_BYTES } from './compression.ts'
import { sha256Of } from './digest.ts'
import type { Entry } from './entry.ts'
import { parse, parseConfig } from './manifest.ts'
import { parseReference } from './reference.ts'
import { type ImageSource, localPart } from './source.ts'
import { SpaceBudget } from './space-budget.ts'
import { TarReader } from './tar.ts'

const BLOCK = 512
const MAX_DOCUMENT_BYTES = 4_194_304
/** Of the archive itself, whose files are layers and documents. */
const MAX_MEMBERS = 65_536
const MAX_NAME_BYTES = 4_194_304

const Manifests = z
  .array(
    z.object({
      Config: z.string(),
      RepoTags: z
        .array(z.string())
        .nullish()
        .transform((tags) => tags ?? []),
      Layers: z.array(z.string()),
    }),
  )
  .min(1)

export interface Member {
  offset: number
  size: number
}

/**
 * Opens an image of what `docker save` wrote; `name` as `registry/repository:tag` when it holds several. Its digest is the image
 * id, as `docker images` shows it. A compressed archive is decompressed into the directory first.
 * Throws `NotFound`, `ImageInvalid`, `PlatformUnsupported`, `NoSpace`.
 */
export async function openDockerArchive(
  file: string,
  name: string | undefined,
  directory: string,
  signal: AbortSignal,
): Promise<ImageSource> {
  const archive = await openArchive(file, directory, signal)
  try {
    const { plain } = archive
    const manifest = choose(
      parse(Manifests, await archive.document('manifest.json'), `manifest.json of ${file}`),
      name,
      file,
    )
    const bytes = await archive.document(manifest.Config)
    const { config, diffIds } = parseConfig(bytes, `the config of ${file}`)
    if (diffIds.length !== manifest.Layers.length)
      throw new IceboxError(
        'ImageInvalid',
        `${file} has ${manifest.Layers.length} layers but its config ${diffIds.length}`,
      )
    const parts = manifest.Layers.map((layer, i) => {
      const { offset, size } = archive.member(layer)
      const diffId = diffIds[i]
      return localPart(size, { do: 'layer', file: plain, offset, length: size, ...(diffId ? { diffId } : {}) })
    })
    return { digest: sha256Of(bytes), config, parts }
  } finally {
    await archive.close()
  }
}

/** The files of a tar by their names, read where they lie. */
export interface Archive {
  /** The tar itself, not compressed. */
  readonly plain: string
  find(path: string): Member | undefined
  /** Throws `ImageInvalid` when it is not there. */
  member(path: string): Member
  /** The whole of a small file. Throws `ImageInvalid`. */
  document(path: string): Promise<Buffer>
  close(): Promise<void>
}

/** A compressed archive is decompressed into the directory first. Throws `NotFound`, `ImageInvalid`, `NoSpace`. */
export async function openArchive(file: string, directory: string, signal: AbortSignal): Promise<Archive> {
  const plain = await decompressed(file, directory, signal)
  const handle = await open(plain)
  try {
    const members = await list(handle, signal)
    const find = (path: string) => members.get(posix.normalize(path))
    const member = (path: string): Member => {
      const found = find(path)
      if (found === undefined) throw new IceboxError('ImageInvalid', `${file} has no ${path}, which the image needs`)
      return found
    }
    return {
      plain,
      find,
      member,
      document: (path) => document(handle, member(path)),
      close: () => handle.close(),
    }
  } catch (thrown) {
    await handle.close()
    throw thrown
  }
}

async function decompressed(file: string, directory: string, signal: AbortSignal): Promise<string> {
  const handle = await open(file).catch((cause: unknown) => {
    throw new IceboxError('NotFound', `${file} cannot be opened`, { cause })
  })
  const start = Buffer.alloc(MAGIC_BYTES)
  try {
    await handle.read(start, 0, MAGIC_BYTES, 0)
  } finally {
    await handle.close()
  }
  const decompress = decompressor(compressionOf(start))
  if (decompress === undefined) return file
  const plain = join(directory, 'archive.tar')
  const space = new SpaceBudget(directory)
  async function* bounded(chunks: AsyncIterable<Buffer>) {
    for await (const chunk of chunks) {
      space.spend(chunk.length)
      yield chunk
    }
  }
  try {
    await pipeline(createReadStream(file), decompress, bounded, createWriteStream(plain), { signal })
  } catch (thrown) {
    signal.throwIfAborted()
    if (thrown instanceof IceboxError) throw thrown
    if (thrown instanceof Error && 'code' in thrown && String(thrown.code).startsWith('Z'))
      throw new IceboxError('ImageInvalid', `${file} cannot be decompressed: ${thrown.message}`, { cause: thrown })
    throw thrown
  }
  return plain
}

/** Where each file of a tar lies, without reading the files. Links lead to what they name: older archives share layers so. */
async function list(handle: FileHandle, signal: AbortSignal): Promise<Map<string, Member>> {
  const members = new Map<string, Member>()
  const links = new Map<string, string>()
  let at = 0
  let names = 0
  const sink = {
    add(entry: Entry) {
      names += entry.path.length + entry.target.length
      if (members.size + links.size >= MAX_MEMBERS || names > MAX_NAME_BYTES)
        throw new IceboxError('ImageInvalid', 'the archive has more files than layers and documents can be')
      const path = posix.normalize(entry.path)
      if (entry.kind === 'file') members.set(path, { offset: at, size: entry.size })
      else if (entry.kind === 'symlink') links.set(path, posix.join(posix.dirname(path), entry.target))
      else if (entry.kind === 'hardlink') links.set(path, posix.normalize(entry.target))
    },
    write() {},
    end() {},
  }
  const reader = new TarReader(sink)
  const { size } = await handle.stat()
  const block = Buffer.alloc(BLOCK)
  while (!reader.ended && at < size) {
    signal.throwIfAborted()
    const { bytesRead } = await handle.read(block, 0, BLOCK, at)
    at += bytesRead
    reader.write(block.subarray(0, bytesRead))
    at += reader.skip()
  }
  if (at > size) throw new IceboxError('ImageInvalid', 'the docker archive is truncated')
  reader.finish(true)
  for (const [path, target] of links) {
    const found = members.get(target)
    if (found !== undefined) members.set(path, found)
  }
  return members
}

async function document(handle: FileHandle, { offset, size }: Member): Promise<Buffer> {
  if (size > MAX_DOCUMENT_BYTES)
    throw new IceboxError('ImageInvalid', 'the manifest of the docker archive is too large')
  const bytes = Buffer.alloc(size)
  await handle.read(bytes, 0, size, offset)
  return bytes
}

function choose(manifests: z.infer<typeof Manifests>, name: string | undefined, file: string) {
  const tags = manifests.flatMap(({ RepoTags }) => RepoTags)
  const fitting =
    name === undefined
      ? manifests
      : manifests.filter(({ RepoTags }) => RepoTags.some((tag) => parseReference(tag).canonical === name))
  const [only] = fitting
  if (only !== undefined && fitting.length === 1) return only
  const there = tags.join(', ') || 'no names'
  throw new IceboxError(
    'NotFound',
    name === undefined
      ? `${file} holds several images: name one of ${there}`
      : `${file} has no ${name}; it has ${there}`,
    { remedy: 'Use docker-archive:FILE:NAME with a name that is there.' },
  )
}
