import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { IceboxError } from '@icebox/model'
import { z } from 'zod'
import { checkDigest, hexOf } from './digest.ts'
import { type Descriptor, Index, type Manifest, parse, parseConfig, parseManifest, selectPlatform } from './manifest.ts'
import { type ImageSource, localPart } from './source.ts'

const REF_NAME = 'org.opencontainers.image.ref.name'
/** Manifests and configs are small; what is larger is something else. */
const MAX_DOCUMENT_BYTES = 8_388_608
const MAX_INDEX_DEPTH = 3

/** Opens the image of a tag (default: the only one) in an OCI image layout. Throws `NotFound`, `ImageInvalid`, `PlatformUnsupported`. */
export async function openLayout(
  directory: string,
  tag: string | undefined,
  signal: AbortSignal,
): Promise<ImageSource> {
  parse(
    z.object({ imageLayoutVersion: z.literal('1.0.0') }),
    await document(join(directory, 'oci-layout'), signal),
    `${directory}/oci-layout`,
  )
  const index = parse(Index, await document(join(directory, 'index.json'), signal), `${directory}/index.json`)
  const found = await resolve(directory, select(directory, index, tag), 0, signal)
  const what = `the config of ${directory}`
  const { config, diffIds } = parseConfig(await blob(directory, found.manifest.config, signal), what)
  const { layers } = found.manifest
  if (diffIds.length !== layers.length)
    throw new IceboxError('ImageInvalid', `${what} names ${diffIds.length} layers but the manifest ${layers.length}`)
  const parts = layers.map(({ digest, size }, i) => {
    const diffId = diffIds[i]
    return localPart(size, {
      do: 'layer',
      file: blobPath(directory, digest),
      length: size,
      digest,
      ...(diffId === undefined ? {} : { diffId }),
    })
  })
  for (const { digest, size } of layers) await checkSize(blobPath(directory, digest), size)
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
  directory: string,
  descriptor: Descriptor,
  depth: number,
  signal: AbortSignal,
): Promise<{ digest: string; manifest: Manifest }> {
  if (depth > MAX_INDEX_DEPTH) throw new IceboxError('ImageInvalid', `${directory} nests indexes too deeply`)
  const read = parseManifest(await blob(directory, descriptor, signal), `${descriptor.digest} in ${directory}`)
  if ('manifest' in read) return { digest: descriptor.digest, manifest: read.manifest }
  return resolve(directory, selectPlatform(read.index, directory), depth + 1, signal)
}

const blobPath = (directory: string, digest: string): string =>
  join(directory, 'blobs', digest.slice(0, digest.indexOf(':')), hexOf(digest))

async function blob(directory: string, { digest, size }: Descriptor, signal: AbortSignal): Promise<Buffer> {
  const path = blobPath(directory, digest)
  await checkSize(path, size)
  const bytes = await document(path, signal)
  checkDigest(digest, bytes, path)
  return bytes
}

async function checkSize(path: string, size: number): Promise<void> {
  const stats = await stat(path).catch(() => undefined)
  if (!stats?.isFile()) throw new IceboxError('ImageInvalid', `the image names ${path}, which is not there`)
  if (stats.size !== size)
    throw new IceboxError('ImageInvalid', `${path} has ${stats.size} bytes but the image says ${size}`)
}

async function document(path: string, signal: AbortSignal): Promise<Buffer> {
  try {
    if ((await stat(path)).size > MAX_DOCUMENT_BYTES) throw new IceboxError('ImageInvalid', `${path} is too large`)
    return await readFile(path, { signal })
  } catch (thrown) {
    if (thrown instanceof Error && 'code' in thrown && (thrown.code === 'ENOENT' || thrown.code === 'ENOTDIR'))
      throw new IceboxError('NotFound', `${path} does not exist, so this is no OCI image layout`, { cause: thrown })
    throw thrown
  }
}
