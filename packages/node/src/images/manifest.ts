import { IceboxError, type ImageConfig } from '@icebox/model'
import { z } from 'zod'
import { Digest } from './digest.ts'

/** The documents of OCI images and of Docker's schema 2, which have the same fields. Unknown fields are let through. */

/** Docker's limit is 127. */
export const MAX_LAYERS = 1000

export const MEDIA_TYPES = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.oci.image.manifest.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
  'application/vnd.docker.distribution.manifest.v2+json',
] as const

export const Descriptor = z.object({
  mediaType: z.string().default(''),
  digest: Digest,
  size: z.int().min(0),
  platform: z.object({ os: z.string(), architecture: z.string(), variant: z.string().optional() }).optional(),
  annotations: z.record(z.string(), z.string()).optional(),
})
export type Descriptor = z.infer<typeof Descriptor>

export const Index = z.object({ manifests: z.array(Descriptor) })
export type Index = z.infer<typeof Index>

export const Manifest = z.object({ config: Descriptor, layers: z.array(Descriptor) })
export type Manifest = z.infer<typeof Manifest>

const strings = z
  .array(z.string())
  .nullish()
  .transform((list) => list ?? [])

const Config = z.object({
  architecture: z.string().default(''),
  os: z.string().default(''),
  config: z
    .object({
      Env: strings,
      Entrypoint: strings,
      Cmd: strings,
      WorkingDir: z.string().nullish(),
      User: z.string().nullish(),
    })
    .nullish(),
  rootfs: z.object({ diff_ids: z.array(Digest) }).optional(),
})

/** What every layer of a tar may be called; compression is read from its bytes. */
const LAYER = /^application\/vnd\.(oci\.image\.layer\.v1\.tar|docker\.image\.rootfs\.diff\.tar)([.+](gzip|zstd))?$/

/** Reads a document. Throws `ImageInvalid` with what is wrong in it. */
export function parse<T>(schema: z.ZodType<T>, bytes: Uint8Array, what: string): T {
  let value: unknown
  try {
    value = JSON.parse(Buffer.from(bytes).toString())
  } catch {
    throw new IceboxError('ImageInvalid', `${what} is not JSON`)
  }
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]
  throw new IceboxError('ImageInvalid', `${what} is not valid: ${issue?.path.join('.')}: ${issue?.message}`)
}

/** An index or a manifest, told apart by what is in it. Throws `ImageInvalid`. */
export function parseManifest(bytes: Uint8Array, what: string): { index: Index } | { manifest: Manifest } {
  const shape = parse(
    z.object({
      schemaVersion: z.number().optional(),
      manifests: z.unknown().optional(),
      layers: z.unknown().optional(),
      config: z.unknown().optional(),
    }),
    bytes,
    what,
  )
  if (shape.manifests !== undefined) return { index: parse(Index, bytes, what) }
  if (shape.layers === undefined || shape.config === undefined)
    throw new IceboxError(
      'ImageInvalid',
      shape.schemaVersion === 1
        ? `${what} is in Docker's schema 1, which is no longer in use: push the image again with a current tool`
        : `${what} is neither an image index nor an image manifest`,
    )
  const manifest = parse(Manifest, bytes, what)
  for (const layer of manifest.layers) checkLayer(layer)
  return { manifest }
}

function checkLayer({ mediaType, digest }: Descriptor): void {
  if (LAYER.test(mediaType)) return
  const why = /foreign|nondistributable/.test(mediaType)
    ? 'must be fetched from elsewhere (a foreign layer), which is not supported'
    : 'is not a layer of a file system'
  throw new IceboxError('ImageInvalid', `the layer ${digest} has the type ${JSON.stringify(mediaType)}: it ${why}`)
}

/** Which entry of an index this machine can run. Throws `PlatformUnsupported` with what there is instead. */
export function selectPlatform(index: Index, what: string): Descriptor {
  const fitting = index.manifests.filter(
    ({ platform }) => platform?.os === 'linux' && platform.architecture === 'amd64',
  )
  // Variants (amd64/v3) need more of the processor than others of the same index.
  const chosen = fitting.find(({ platform }) => !platform?.variant || platform.variant === 'v1') ?? fitting[0]
  if (chosen !== undefined) return chosen
  // A layout of one image often does not say its platform here; its config does, and is checked.
  const [only] = index.manifests
  if (only !== undefined && index.manifests.length === 1 && only.platform === undefined) return only
  const present = index.manifests.map(({ platform }) =>
    platform === undefined
      ? 'unknown'
      : [platform.os, platform.architecture, platform.variant].filter(Boolean).join('/'),
  )
  throw new IceboxError(
    'PlatformUnsupported',
    `${what} has no linux/amd64 variant; it has ${present.join(', ') || 'none'}`,
  )
}

export interface ParsedConfig {
  config: ImageConfig
  diffIds: string[]
}

/** Throws `ImageInvalid`, and `PlatformUnsupported` when the image is for another platform. */
export function parseConfig(bytes: Uint8Array, what: string): ParsedConfig {
  const { os, architecture, config, rootfs } = parse(Config, bytes, what)
  if ((os || 'linux') !== 'linux' || (architecture || 'amd64') !== 'amd64')
    throw new IceboxError('PlatformUnsupported', `${what} is for ${os}/${architecture}, not for linux/amd64`)
  return {
    config: {
      env: Object.fromEntries((config?.Env ?? []).map(variable)),
      workingDir: config?.WorkingDir || '/',
      user: config?.User ?? '',
      entrypoint: config?.Entrypoint ?? [],
      cmd: config?.Cmd ?? [],
    },
    diffIds: rootfs?.diff_ids ?? [],
  }
}

function variable(text: string): [string, string] {
  const equals = text.indexOf('=')
  return equals < 0 ? [text, ''] : [text.slice(0, equals), text.slice(equals + 1)]
}

/** For trees that come without any: what Docker assumes. */
export const PLAIN_CONFIG: ImageConfig = {
  env: { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' },
  workingDir: '/',
  user: '',
  entrypoint: [],
  cmd: [],
}
