import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { IceboxError } from '@icebox/model'
import { checkDigest, DigestCheck, hexOf, sha256Of } from '../digest.ts'
import { type Descriptor, type Manifest, MEDIA_TYPES, parseConfig, parseManifest, selectPlatform } from '../manifest.ts'
import type { Reference } from '../reference.ts'
import type { ImageSource, SourcePart } from '../source.ts'
import { authorize, parseChallenge, refused } from './authorization.ts'
import { type Credentials, findCredentials } from './credentials.ts'
import { type Answer, bodyOf, broken, isLoopback, request, retrying, Transient } from './http.ts'

/** Manifests and configs are small; what is larger is something else. */
const MAX_DOCUMENT_BYTES = 8_388_608
const MAX_INDEX_DEPTH = 3
const DOCKER_HUB_HOST = 'registry-1.docker.io'

/**
 * Opens an image of a registry (the OCI distribution API, which is Docker's v2). Every document and layer must have its digest.
 * Throws `NotFound`, `ImageInvalid`, `PlatformUnsupported`, `RegistryUnreachable`, `TooManyRequests`.
 */
export async function openRegistry(
  reference: Reference & { kind: 'registry' },
  signal: AbortSignal,
): Promise<ImageSource> {
  const { registry, repository, tag, digest, canonical } = reference
  const client = new RegistryClient(registry, repository, await findCredentials(registry, signal))
  const found = await resolve(client, digest ?? tag, digest, canonical, 0, signal)
  const document = await client.document(`blobs/${found.manifest.config.digest}`, `the config of ${canonical}`, signal)
  checkDigest(found.manifest.config.digest, document, `the config of ${canonical}`)
  const { config, diffIds } = parseConfig(document, `the config of ${canonical}`)
  const { layers } = found.manifest
  if (diffIds.length !== layers.length)
    throw new IceboxError('ImageInvalid', `${canonical} has ${layers.length} layers but its config ${diffIds.length}`)
  return { digest: found.digest, config, parts: layers.map((layer, i) => layerPart(client, layer, diffIds[i], i)) }
}

async function resolve(
  client: RegistryClient,
  name: string,
  digest: string | undefined,
  what: string,
  depth: number,
  signal: AbortSignal,
): Promise<{ digest: string; manifest: Manifest }> {
  if (depth > MAX_INDEX_DEPTH) throw new IceboxError('ImageInvalid', `${what} nests indexes too deeply`)
  const document = await client.document(`manifests/${name}`, what, signal)
  if (digest !== undefined) checkDigest(digest, document, what)
  const read = parseManifest(document, what)
  if ('manifest' in read) return { digest: digest ?? sha256Of(document), manifest: read.manifest }
  const chosen = selectPlatform(read.index, what)
  return resolve(client, chosen.digest, chosen.digest, what, depth + 1, signal)
}

function layerPart(client: RegistryClient, layer: Descriptor, diffId: string | undefined, index: number): SourcePart {
  return {
    storedBytes: layer.size,
    downloaded: true,
    async fetch(directory, onBytes, signal) {
      // The same layer may be in an image twice.
      const file = join(directory, `${index}-${hexOf(layer.digest)}`)
      await client.download(layer, file, onBytes, signal)
      return { do: 'layer', file, length: layer.size, ...(diffId === undefined ? {} : { diffId }) }
    },
  }
}

/** Speaks to one repository of one registry. */
class RegistryClient {
  readonly #registry: string
  readonly #base: string
  readonly #scope: string
  readonly #credentials: Credentials | undefined
  #authorization: string | undefined

  constructor(registry: string, repository: string, credentials: Credentials | undefined) {
    this.#registry = registry
    const host = registry === 'docker.io' ? DOCKER_HUB_HOST : registry
    const scheme = isLoopback(new URL(`http://${host}`).hostname) ? 'http' : 'https'
    this.#base = `${scheme}://${host}/v2/${repository}/`
    this.#scope = `repository:${repository}:pull`
    this.#credentials = credentials
  }

  /** A manifest or config, whole. */
  async document(path: string, what: string, signal: AbortSignal): Promise<Buffer> {
    const headers = path.startsWith('manifests/') ? { accept: MEDIA_TYPES.join(', ') } : {}
    return retrying(async () => {
      const answer = await this.#get(path, headers, what, signal)
      return bodyOf(answer, MAX_DOCUMENT_BYTES, what, signal)
    }, signal)
  }

  /** Writes a blob into a new file and checks its digest. Goes on where it broke off, as long as something comes. */
  async download(
    { digest, size }: Descriptor,
    path: string,
    onBytes: (bytes: number) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const what = `the layer ${digest}`
    let check = new DigestCheck(digest)
    let done = 0
    let farthest = 0
    await using file = await open(path, 'wx')
    await retrying(async (progressed) => {
      const answer = await this.#get(`blobs/${digest}`, done > 0 ? { range: `bytes=${done}-` } : {}, what, signal)
      const from = answer.status === 206 ? Number(/^bytes (\d+)-/.exec(answer.headers['content-range'] ?? '')?.[1]) : 0
      if (from !== done) {
        if (from !== 0)
          throw new IceboxError('RegistryUnreachable', `${this.#registry} sends another range than asked for`)
        check = new DigestCheck(digest)
        done = 0
      }
      try {
        for await (const chunk of answer.body as AsyncIterable<Buffer>) {
          if (done + chunk.length > size) throw new IceboxError('ImageInvalid', `${what} is longer than ${size} bytes`)
          check.update(chunk)
          await writeAll(file, chunk, done)
          done += chunk.length
          if (done > farthest) progressed()
          farthest = Math.max(farthest, done)
          onBytes(farthest)
        }
      } catch (thrown) {
        throw broken(thrown, what, signal)
      }
      if (done < size)
        throw new Transient(new IceboxError('ImageInvalid', `${what} ends after ${done} of ${size} bytes`))
    }, signal)
    check.finish(what)
  }

  /** Asks with what authorisation there is, and once more with what the registry demands. */
  async #get(path: string, headers: Record<string, string>, what: string, signal: AbortSignal): Promise<Answer> {
    const url = new URL(path, this.#base)
    const ask = () => {
      const authorization = this.#authorization
      return request(url, { headers: authorization === undefined ? headers : { ...headers, authorization } }, signal)
    }
    let answer = await ask()
    if (answer.status === 401) {
      answer.body.destroy()
      const challenge = parseChallenge(answer.headers['www-authenticate'] ?? '')
      if (challenge === undefined)
        throw refused(this.#registry, 'it asks for an unknown authorisation', this.#credentials)
      this.#authorization = await authorize(challenge, this.#registry, this.#scope, this.#credentials, signal)
      answer = await ask()
    }
    if (answer.status === 200 || answer.status === 206) return answer
    answer.body.destroy()
    if (answer.status === 404)
      throw new IceboxError('NotFound', `${this.#registry} does not have ${what}`, {
        details: { registry: this.#registry },
        remedy: 'Check the name and the tag; a private image may need `docker login` first.',
      })
    throw refused(this.#registry, `it answers ${what} with status ${answer.status}`, this.#credentials)
  }
}

async function writeAll(file: Awaited<ReturnType<typeof open>>, chunk: Buffer, position: number): Promise<void> {
  for (let at = 0; at < chunk.length; )
    at += (await file.write(chunk, at, chunk.length - at, position + at)).bytesWritten
}
