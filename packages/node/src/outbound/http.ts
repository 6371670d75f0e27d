import { Agent as HttpAgent, request as httpRequest, type IncomingMessage, type RequestOptions } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import { isIP } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { createSecureContext, getCACertificates, type SecureContext } from 'node:tls'
import { collect, IceboxError, isError, type Reservation } from '@icebox/model'
import { type AddressPolicy, AddressRefused } from './policy.ts'
import { proxyOf } from './proxy.ts'

/**
 * The one way out: everything that the server fetches from elsewhere goes through here, because what is fetched, where redirects
 * lead and which token server is asked are said by others.
 */

/** How long a server may take to begin an answer, and how long it may then say nothing. */
const SILENCE_MS = 60_000
/** How long a document may take, from the question to its last byte. */
const DOCUMENT_MS = 60_000
const MAX_REDIRECTS = 5
const MAX_ATTEMPTS = 6
const FIRST_PAUSE_MS = 250
const MAX_PAUSE_MS = 10_000
/** Failures to connect that may pass. A name that does not exist or a certificate that is wrong stays so. */
const PASSING_ERRORS = [
  ...['ECONNRESET', 'ECONNABORTED', 'EPIPE', 'ETIMEDOUT', 'ENETUNREACH', 'EHOSTUNREACH'],
  // Of name servers.
  ...['EAI_AGAIN', 'ETIMEOUT', 'ESERVFAIL'],
]

export interface Answer {
  status: number
  /** Of whoever answered in the end. */
  origin: string
  headers: IncomingMessage['headers']
  /** To be read to its end or destroyed. */
  body: IncomingMessage
}

export interface Request {
  method?: 'GET' | 'POST'
  headers?: Record<string, string>
  body?: string
}

/** Something that may go better when tried again: a lost connection, a server that is overloaded. */
export class Transient extends Error {
  /** What to say when trying again has not helped. */
  readonly error: IceboxError
  /** Milliseconds that the server asks to wait. */
  readonly waitMs: number | undefined

  constructor(error: IceboxError, waitMs?: number) {
    super(error.message, { cause: error })
    this.error = error
    this.waitMs = waitMs
  }
}

interface Agents {
  http: HttpAgent
  https: HttpsAgent
  /** By the proxy's address. */
  proxies: Map<string, HttpsAgent>
}

/** Of each policy its own: a connection that is kept is used again without a look at its address. */
const agents = new WeakMap<AddressPolicy, Agents>()

/** Certificates that the machine's owner has added are trusted as every other program here does. */
let trusted: SecureContext | undefined
const trust = (): SecureContext => {
  trusted ??= createSecureContext({ ca: [...getCACertificates('default'), ...getCACertificates('system')] })
  return trusted
}

function agentsOf(policy: AddressPolicy): Agents {
  const known = agents.get(policy)
  if (known !== undefined) return known
  const made = {
    http: new HttpAgent({ keepAlive: true }),
    https: new HttpsAgent({ keepAlive: true, secureContext: trust() }),
    proxies: new Map(),
  }
  agents.set(policy, made)
  return made
}

/**
 * How to get to a host. Through a proxy the address of the host is the proxy's to find: what this machine's resolver knows of it is
 * checked all the same, and a host that it does not know is left to the proxy.
 */
async function way(url: URL, policy: AddressPolicy): Promise<RequestOptions> {
  const { http, https, proxies } = agentsOf(policy)
  const host = url.hostname.replace(/^\[|\]$/g, '')
  const port = Number(url.port || (url.protocol === 'https:' ? 443 : 80))
  const proxy = proxyOf(url, process.env)
  if (proxy !== undefined) {
    await policy.resolve(host, port).catch((thrown: unknown) => {
      if (thrown instanceof AddressRefused) throw thrown
    })
    const proxied = { keepAlive: true, secureContext: trust(), proxyEnv: { HTTPS_PROXY: proxy } }
    const agent = proxies.get(proxy) ?? new HttpsAgent(proxied)
    proxies.set(proxy, agent)
    return { agent }
  }
  // An address is connected to without a lookup.
  if (isIP(host) !== 0) await policy.resolve(host, port)
  return { agent: url.protocol === 'https:' ? https : http, lookup: policy.lookup(port) }
}

/** The only hosts that are spoken to without TLS, where the policy lets them be spoken to at all. */
export const isLoopback = (hostname: string): boolean =>
  hostname === 'localhost' || hostname === '[::1]' || /^127(\.\d{1,3}){3}$/.test(hostname)

/**
 * Asks and follows redirects; credentials go to the first host only, and never from TLS to none. Any status is an answer
 * except those of an overloaded server. Throws `Transient`, `RegistryUnreachable`.
 */
export async function request(url: URL, ask: Request, policy: AddressPolicy, signal: AbortSignal): Promise<Answer> {
  let target = url
  let headers = ask.headers ?? {}
  for (let redirects = 0; ; redirects++) {
    const answer = await once(target, { ...ask, headers }, policy, signal)
    const { location } = answer.headers
    if (answer.status < 300 || answer.status >= 400 || location === undefined) return overloaded(answer, target)
    answer.body.destroy()
    if (redirects === MAX_REDIRECTS) throw unreachable(target, 'it redirects without end')
    const next = URL.parse(location, target)
    if (next === null) throw unreachable(target, 'it redirects to what is no address')
    if (
      next.protocol !== 'https:' &&
      !(next.protocol === 'http:' && isLoopback(next.hostname) && target.protocol === 'http:')
    )
      throw unreachable(target, `it redirects to ${next.origin}, which is not protected by TLS`)
    if (next.origin !== target.origin)
      headers = Object.fromEntries(Object.entries(headers).filter(([name]) => name !== 'authorization'))
    target = next
  }
}

/** Whether the head of a refusal is one that registries send and other servers do not. */
export const isOfRegistry = ({ headers }: Answer): boolean =>
  headers['docker-distribution-api-version'] !== undefined || headers['content-type']?.includes('json') === true

function overloaded(answer: Answer, url: URL): Answer {
  const { status } = answer
  if (status !== 429 && status < 500) return answer
  answer.body.destroy()
  const seconds = Number(answer.headers['retry-after'])
  const wait = Number.isFinite(seconds) ? seconds * 1000 : undefined
  const error =
    status === 429 && isOfRegistry(answer)
      ? new IceboxError('TooManyRequests', `${url.host} asks to send fewer requests`)
      : unreachable(url, `it answers with status ${status}`)
  throw new Transient(error, wait)
}

async function once(
  url: URL,
  { method = 'GET', headers, body }: Request,
  policy: AddressPolicy,
  signal: AbortSignal,
): Promise<Answer> {
  signal.throwIfAborted()
  const { promise, resolve, reject } = Promise.withResolvers<Answer>()
  try {
    const send = url.protocol === 'https:' ? httpsRequest : httpRequest
    const options = { method, headers: { 'user-agent': 'icebox', ...headers }, signal, ...(await way(url, policy)) }
    const sent = send(url, options)
    const silent = () => sent.destroy(new Error(`it said nothing for ${SILENCE_MS / 1000} s`))
    sent.setTimeout(SILENCE_MS, silent)
    // Whoever sends its head letter by letter is not silent.
    const late = setTimeout(silent, SILENCE_MS)
    // For good: an abort can fail the request once more after its answer has begun.
    sent.on('error', (error) => reject(error))
    sent.once('response', (message) =>
      resolve({ status: message.statusCode ?? 0, origin: url.origin, headers: message.headers, body: message }),
    )
    sent.end(body)
    return await promise.finally(() => clearTimeout(late))
  } catch (thrown) {
    signal.throwIfAborted()
    const error = thrown instanceof Error ? thrown : new Error(String(thrown))
    const failure = unreachable(url, error.message, error)
    throw 'code' in error && !PASSING_ERRORS.includes(String(error.code)) ? failure : new Transient(failure)
  }
}

const unreachable = (url: URL, why: string, cause?: unknown): IceboxError =>
  new IceboxError('RegistryUnreachable', `${url.host} cannot be used: ${why}`, { cause, details: { host: url.host } })

/**
 * Asks for something small and gives it whole. `held` grows with it. Throws `ImageInvalid` when it is longer than `limit` bytes,
 * `Transient` when it breaks off or takes too long.
 */
export async function fetchDocument(
  ask: (signal: AbortSignal) => Promise<Answer>,
  { limit, what, held }: { limit: number; what: string; held: Reservation },
  signal: AbortSignal,
): Promise<{ answer: Answer; body: Buffer }> {
  const late = AbortSignal.timeout(DOCUMENT_MS)
  try {
    const answer = await ask(AbortSignal.any([signal, late]))
    return { answer, body: Buffer.from((await collect(answer.body, limit, held)).buffer) }
  } catch (thrown) {
    if (isError(thrown, 'TooLarge')) throw new IceboxError('ImageInvalid', `${what} is larger than ${limit} bytes`)
    throw broken(thrown === late.reason ? new Error(`it took over ${DOCUMENT_MS / 1000} s`) : thrown, what, signal)
  }
}

const DISK_ERRORS = ['ENOSPC', 'EDQUOT', 'EIO', 'EFBIG', 'EROFS']

/** What a failure in the middle of a body is: of the disk it is written to, or of the connection. */
export function broken(thrown: unknown, what: string, signal: AbortSignal): unknown {
  if (signal.aborted) return signal.reason
  if (thrown instanceof IceboxError || thrown instanceof Transient || !(thrown instanceof Error)) return thrown
  if ('code' in thrown && DISK_ERRORS.includes(String(thrown.code))) return thrown
  return new Transient(
    new IceboxError('RegistryUnreachable', `${what} broke off: ${thrown.message}`, { cause: thrown }),
  )
}

/** Tries again after `Transient`, with growing pauses. `work` may call `progressed` to begin counting anew. */
export async function retrying<T>(work: (progressed: () => void) => Promise<T>, signal: AbortSignal): Promise<T> {
  let attempts = 0
  const progressed = () => {
    attempts = 0
  }
  for (;;)
    try {
      return await work(progressed)
    } catch (thrown) {
      signal.throwIfAborted()
      if (!(thrown instanceof Transient)) throw thrown
      if (++attempts >= MAX_ATTEMPTS) throw thrown.error
      const pause = thrown.waitMs ?? FIRST_PAUSE_MS * 2 ** (attempts - 1) * (0.5 + Math.random())
      await sleep(Math.min(pause, MAX_PAUSE_MS), undefined, { signal })
    }
}
