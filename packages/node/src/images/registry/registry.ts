import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { IceboxError, type Reservation } from '@icebox/model'
import {
  type Answer,
  broken,
  fetchDocument,
  isLoopback,
  isOfRegistry,
  request,
  retrying,
  Transient,
} from '../../outbound/http.ts'
import type { AddressPolicy } from '../../outbound/policy.ts'
import { checkDigest, DigestCheck, hexOf, sha256Of } from '../digest.ts'
import {
  type Descriptor,
  MAX_LAYERS,
  type Manifest,
  MEDIA_TYPES,
  parseConfig,
  parseManifest,
  selectPlatform,
} from '../manifest.ts'
import type { Reference } from '../reference.ts'
import type { ImageSource, SourcePart } from '../source.ts'
import { authorize, parseChallenge, refused } from './authorization.ts'
import { type Credentials, findCredentials } from './credentials.ts'

/** What registries take at most for a manifest. Configs are smaller. */
const MAX_DOCUMENT_BYTES = 4_194_304
/** A layer that comes slower than this holds its place in the queue for nothing. */
const SLOWEST = { bytes: 1_048_576, milliseconds: 60_000 }
const MAX_INDEX_DEPTH = 3
const DOCKER_HUB_HOST = 'registry-1.docker.io'

/** What a pull from a registry may have. */
export interface RegistryAccess {
  policy: AddressPolicy
  /** Whether it may show the credentials that the operator has. */
  credentials: boolean
  /** Grows with the documents that are kept. */
  held: Reservation
}

/**
 * Opens an image of a registry (the OCI distribution API, which is Docker's v2). Every document and layer must have its digest.
 * Throws `NotFound`, `ImageInvalid`, `PlatformUnsupported`, `RegistryUnreachable`, `TooManyRequests`.
 */
export async function openRegistry(
  reference: Reference & { kind: 'registry' },
  access: RegistryAccess,
  signal: AbortSignal,
): Promise<ImageSource> {
  const { registry, repository, tag, digest, canonical } = reference
  const credentials = access.credentials ? await findCredentials(registry, signal) : undefined
  const client = new RegistryClient(registry, repository, credentials, access)
  const found = await resolve(client, digest ?? tag, digest, canonical, 0, signal)
  const document = await client.document(`blobs/${found.manifest.config.digest}`, `the config of ${canonical}`, signal)
  checkDigest(found.manifest.config.digest, document, `the config of ${canonical}`)
  const { config, diffIds } = parseConfig(document, `the config of ${canonical}`)
  const { layers } = found.manifest
  if (diffIds.length !== layers.length)
    throw new IceboxError('ImageInvalid', `${canonical} has ${layers.length} layers but its config ${diffIds.length}`)
  if (layers.length > MAX_LAYERS) throw new IceboxError('ImageInvalid', `${canonical} has over ${MAX_LAYERS} layers`)
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
  readonly #policy: AddressPolicy
  readonly #held: Reservation
  /** For the registry itself alone. */
  #authorization: string | undefined

  constructor(
    registry: string,
    repository: string,
    credentials: Credentials | undefined,
    { policy, held }: RegistryAccess,
  ) {
    this.#registry = registry
    this.#policy = policy
    this.#held = held
    const host = registry === 'docker.io' ? DOCKER_HUB_HOST : registry
    const scheme = isLoopback(new URL(`http://${host}`).hostname) ? 'http' : 'https'
    this.#base = `${scheme}://${host}/v2/${repository}/`
    this.#scope = `repository:${repository}:pull`
    this.#credentials = credentials
  }

  /** A manifest or config, whole. */
  async document(path: string, what: string, signal: AbortSignal): Promise<Buffer> {
    const headers = path.startsWith('manifests/') ? { accept: MEDIA_TYPES.join(', ') } : {}
    const size = { limit: MAX_DOCUMENT_BYTES, what, held: this.#held }
    const fetched = () => fetchDocument((until) => this.#get(path, headers, what, until), size, signal)
    const { body } = await retrying(fetched, signal)
    if (isJsonObject(body)) return body
    throw new IceboxError('RegistryUnreachable', `${this.#registry} answers ${what} with no document of a registry`)
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
      const stop = endSlow(answer, () => done)
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
      } finally {
        stop()
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
      const sent = authorization === undefined ? headers : { ...headers, authorization }
      return request(url, { headers: sent }, this.#policy, signal)
    }
    let answer = await ask()
    // What a redirect led to may not ask in the registry's name.
    if (answer.status === 401 && answer.origin === url.origin) {
      answer.body.destroy()
      const challenge = parseChallenge(answer.headers['www-authenticate'] ?? '')
      if (challenge === undefined)
        throw refused(this.#registry, 'it asks for an unknown authorisation', this.#credentials)
      const asking = {
        registry: this.#registry,
        origin: url.origin,
        scope: this.#scope,
        credentials: this.#credentials,
        policy: this.#policy,
        held: this.#held,
      }
      this.#authorization = await authorize(challenge, asking, signal)
      answer = await ask()
    }
    if (answer.status === 200 || answer.status === 206) return answer
    answer.body.destroy()
    // Anything that speaks HTTP knows this status; only a registry knows what it has not.
    if (answer.status === 404 && isOfRegistry(answer))
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

/** As far as its first character tells: what is no registry mostly answers with a page. */
const isJsonObject = (document: Buffer): boolean => /^\s{0,16}\{/.test(document.toString('latin1', 0, 32))

/** Ends a layer that comes too slowly. Gives what ends the watch. */
function endSlow({ body }: Answer, done: () => number): () => void {
  let before = done()
  const timer = setInterval(() => {
    const slow = `it sent less than ${SLOWEST.bytes} bytes in ${SLOWEST.milliseconds / 1000} s`
    if (done() - before < SLOWEST.bytes) body.destroy(new IceboxError('RegistryUnreachable', slow))
    before = done()
  }, SLOWEST.milliseconds)
  return () => clearInterval(timer)
}
