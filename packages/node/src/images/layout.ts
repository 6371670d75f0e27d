import { open } from 'node:fs/promises'
import { IceboxError } from '@icebox/model'
import { z } from 'zod'
import { checkDigest, hexOf } from './digest.ts'
import {
  type Descriptor,
  Index,
  MAX_LAYERS,
  type Manifest,
  parse,
  parseConfig,
  parseManifest,
  selectPlatform,
} from './manifest.ts'
import { type ImageSource, localPart } from './source.ts'

const REF_NAME = 'org.opencontainers.image.ref.name'
/** Manifests and configs are small; what is larger is something else. */
const MAX_DOCUMENT_BYTES = 4_194_304
const MAX_INDEX_DEPTH = 3

/** The files of a layout: those of a directory, or of a tar. */
export interface LayoutFiles {
  /** As people know it. */
  readonly name: string
  /** Where a file's bytes are; undefined: there is no such file. */
  find(path: readonly string[]): Promise<Place | undefined>
}
export interface Place {
  file: string
  offset: number
  length: number
}

/** Opens the image of a tag (default: the only one) in an OCI image layout. Throws `NotFound`, `ImageInvalid`, `PlatformUnsupported`. */
export async function openLayout(
  files: LayoutFiles,
  tag: string | undefined,
  signal: AbortSignal,
): Promise<ImageSource> {
  parse(
    z.object({ imageLayoutVersion: z.literal('1.0.0') }),
    await head(files, 'oci-layout', signal),
    `${files.name}/oci-layout`,
  )
  const index = parse(Index, await head(files, 'index.json', signal), `${files.name}/index.json`)
  const found = await resolve(files, select(files.name, index, tag), 0, signal)
  const what = `the config of ${files.name}`
  const { config, diffIds } = parseConfig(await blob(files, found.manifest.config, signal), what)
  const { layers } = found.manifest
  if (diffIds.length !== layers.length)
    throw new IceboxError('ImageInvalid', `${what} names ${diffIds.length} layers but the manifest ${layers.length}`)
  if (layers.length > MAX_LAYERS) throw new IceboxError('ImageInvalid', `${files.name} has over ${MAX_LAYERS} layers`)
  const parts = []
  for (const [i, layer] of layers.entries()) {
    const diffId = diffIds[i]
    const { digest, size } = layer
    const place = await blobPlace(files, layer)
    parts.push(localPart(size, { do: 'layer', ...place, digest, ...(diffId === undefined ? {} : { diffId }) }))
  }
  return { digest: found.digest, config, parts }
}

function select(directory: string, index: Index, tag: string | undefined): Descriptor {
  const names = index.manifests.map(({ annotations }) => annotations?.[REF_NAME])
  const fitting = tag === undefined ? index.manifests : index.manifests.filter((_, i) => names[i] === tag)
  const [only] = fitting
  if (only !== undefined && fitting.length === 1) return only
  // Several manifests under one name are the platforms of one image.
  if (fitting.length > 1 && (tag !== undefined || names.every((name) => name === names[0])))
    return selectPlatform({ manifests: fitting }, directory)
  const tags = names.filter((name) => name !== undefined).join(', ') || 'none'
  throw new IceboxError(
    'NotFound',
    tag === undefined
      ? `${directory} has several images: name a tag of ${tags}`
      : `${directory} has no tag ${tag}; it has ${tags}`,
    { details: { directory }, remedy: 'Use oci:DIR:TAG with a tag that is there.' },
  )
}

async function resolve(
  files: LayoutFiles,
  descriptor: Descriptor,
  depth: number,
  signal: AbortSignal,
): Promise<{ digest: string; manifest: Manifest }> {
  if (depth > MAX_INDEX_DEPTH) throw new IceboxError('ImageInvalid', `${files.name} nests indexes too deeply`)
  const read = parseManifest(await blob(files, descriptor, signal), `${descriptor.digest} in ${files.name}`)
  if ('manifest' in read) return { digest: descriptor.digest, manifest: read.manifest }
  return resolve(files, selectPlatform(read.index, files.name), depth + 1, signal)
}

const blobPath = (digest: string): string[] => ['blobs', digest.slice(0, digest.indexOf(':')), hexOf(digest)]

async function blob(files: LayoutFiles, descriptor: Descriptor, signal: AbortSignal): Promise<Buffer> {
  const path = blobPath(descriptor.digest).join('/')
  const bytes = await read(await blobPlace(files, descriptor), path, signal)
  checkDigest(descriptor.digest, bytes, path)
  return bytes
}

async function blobPlace(files: LayoutFiles, { digest, size }: Descriptor): Promise<Place> {
  const path = blobPath(digest)
  const place = await files.find(path)
  if (place === undefined)
    throw new IceboxError('ImageInvalid', `the image names ${path.join('/')}, which is not there`)
  if (place.length !== size)
    throw new IceboxError('ImageInvalid', `${path.join('/')} has ${place.length} bytes but the image says ${size}`)
  return place
}

/** What makes a directory a layout. */
async function head(files: LayoutFiles, name: string, signal: AbortSignal): Promise<Buffer> {
  const place = await files.find([name])
  if (place === undefined)
    throw new IceboxError('NotFound', `${files.name} has no ${name}, so this is no OCI image layout`)
  return read(place, `${files.name}/${name}`, signal)
}

async function read({ file, offset, length }: Place, name: string, signal: AbortSignal): Promise<Buffer> {
  if (length > MAX_DOCUMENT_BYTES) throw new IceboxError('ImageInvalid', `${name} is too large`)
  await using handle = await open(file)
  const bytes = Buffer.alloc(length)
  signal.throwIfAborted()
  const { bytesRead } = await handle.read(bytes, 0, length, offset)
  return bytes.subarray(0, bytesRead)
}
