import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http'
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https'
import { setTimeout as sleep } from 'node:timers/promises'
import { createSecureContext, getCACertificates } from 'node:tls'
import { IceboxError } from '@icebox/model'

/** How long a server may take to begin an answer, and how long it may then say nothing. */
const SILENCE_MS = 60_000
const MAX_REDIRECTS = 5
const MAX_ATTEMPTS = 6
const FIRST_PAUSE_MS = 250
const MAX_PAUSE_MS = 10_000
/** Failures to connect that may pass. A name that does not exist or a certificate that is wrong stays so. */
const PASSING_ERRORS = ['ECONNRESET', 'ECONNABORTED', 'EPIPE', 'ETIMEDOUT', 'EAI_AGAIN', 'ENETUNREACH', 'EHOSTUNREACH']

export interface Answer {
  status: number
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

let agents: { direct: HttpAgent; http: HttpAgent; https: HttpsAgent } | undefined

function agentFor(url: URL): HttpAgent {
  agents ??= {
    direct: new HttpAgent({ keepAlive: true }),
    http: new HttpAgent({ keepAlive: true, proxyEnv: process.env }),
    https: new HttpsAgent({
      keepAlive: true,
      proxyEnv: process.env,
      // Certificates that the machine's owner has added are trusted as every other program here does.
      secureContext: createSecureContext({ ca: [...getCACertificates('default'), ...getCACertificates('system')] }),
    }),
  }
  if (url.protocol === 'https:') return agents.https
  return isLoopback(url.hostname) ? agents.direct : agents.http
}

/** The only hosts that are spoken to without TLS. */
export const isLoopback = (hostname: string): boolean =>
  hostname === 'localhost' || hostname === '[::1]' || /^127(\.\d{1,3}){3}$/.test(hostname)

/**
 * Asks and follows redirects; credentials go to the first host only, and never from TLS to none. Any status is an answer
 * except those of an overloaded server. Throws `Transient`, `RegistryUnreachable`.
 */
export async function request(url: URL, ask: Request, signal: AbortSignal): Promise<Answer> {
  let target = url
  let headers = ask.headers ?? {}
  for (let redirects = 0; ; redirects++) {
    const answer = await once(target, { ...ask, headers }, signal)
    const { location } = answer.headers
    if (answer.status < 300 || answer.status >= 400 || location === undefined) return overloaded(answer, target)
    answer.body.destroy()
    if (redirects === MAX_REDIRECTS) throw unreachable(target, 'it redirects without end')
    const next = new URL(location, target)
    if (next.protocol !== 'https:' && !(next.protocol === 'http:' && isLoopback(next.hostname)))
      throw unreachable(target, `it redirects to ${next.origin}, which is not protected by TLS`)
    if (next.origin !== target.origin)
      headers = Object.fromEntries(Object.entries(headers).filter(([name]) => name !== 'authorization'))
    target = next
  }
}

function overloaded(answer: Answer, url: URL): Answer {
  const { status } = answer
  if (status !== 429 && status < 500) return answer
  answer.body.destroy()
  const seconds = Number(answer.headers['retry-after'])
  const wait = Number.isFinite(seconds) ? seconds * 1000 : undefined
  const error =
    status === 429
      ? new IceboxError('TooManyRequests', `${url.host} asks to send fewer requests`)
      : unreachable(url, `it answers with status ${status}`)
  throw new Transient(error, wait)
}

async function once(url: URL, { method = 'GET', headers, body }: Request, signal: AbortSignal): Promise<Answer> {
  signal.throwIfAborted()
  const { promise, resolve, reject } = Promise.withResolvers<Answer>()
  const send = url.protocol === 'https:' ? httpsRequest : httpRequest
  const sent = send(url, { method, headers: { 'user-agent': 'icebox', ...headers }, agent: agentFor(url), signal })
  sent.setTimeout(SILENCE_MS, () => sent.destroy(new Error(`it said nothing for ${SILENCE_MS / 1000} s`)))
  // For good: an abort can fail the request once more after its answer has begun.
  sent.on('error', (error) => reject(error))
  sent.once('response', (message) =>
    resolve({ status: message.statusCode ?? 0, headers: message.headers, body: message }),
  )
  sent.end(body)
  try {
    return await promise
  } catch (thrown) {
    signal.throwIfAborted()
    const error = thrown instanceof Error ? thrown : new Error(String(thrown))
    const failure = unreachable(url, error.message, error)
    throw 'code' in error && !PASSING_ERRORS.includes(String(error.code)) ? failure : new Transient(failure)
  }
}

const unreachable = (url: URL, why: string, cause?: unknown): IceboxError =>
  new IceboxError('RegistryUnreachable', `${url.host} cannot be used: ${why}`, { cause, details: { host: url.host } })

/** All of an answer's body. Throws `ImageInvalid` when it is longer than `limit` bytes, `Transient` when it breaks off. */
export async function bodyOf(answer: Answer, limit: number, what: string, signal: AbortSignal): Promise<Buffer> {
  const chunks: Buffer[] = []
  let size = 0
  try {
    for await (const chunk of answer.body as AsyncIterable<Buffer>) {
      chunks.push(chunk)
      size += chunk.length
      if (size > limit) throw new IceboxError('ImageInvalid', `${what} is larger than ${limit} bytes`)
    }
  } catch (thrown) {
    throw broken(thrown, what, signal)
  }
  return Buffer.concat(chunks)
}

const DISK_ERRORS = ['ENOSPC', 'EDQUOT', 'EIO', 'EFBIG', 'EROFS']

/** What a failure in the middle of a body is: of the disk it is written to, or of the connection. */
export function broken(thrown: unknown, what: string, signal: AbortSignal): unknown {
  if (signal.aborted) return signal.reason
  if (thrown instanceof IceboxError || !(thrown instanceof Error)) return thrown
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
