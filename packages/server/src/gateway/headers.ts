import type { IncomingMessage } from 'node:http'
import { IceboxError } from '@icebox/model'
import { authorityOf, isLoopback } from '../access.ts'
import type { Address } from './address.ts'

/** Of one connection alone, besides what its Connection header names. */
const HOP = new Set([
  'connection',
  'http2-settings',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'transfer-encoding',
  'upgrade',
])
/** Said anew for the next hop. */
const FRAMING = new Set(['content-length', 'host', 'trailer'])
const FORWARDED = new Set(['x-forwarded-for', 'x-forwarded-host', 'x-forwarded-proto', 'x-forwarded-prefix'])

/**
 * What an answer by path may not say, where all sandboxes and the API have one origin: that a service worker of this sandbox gets the
 * requests to others.
 */
const OF_ORIGIN = new Set(['service-worker-allowed'])

type Pair = [name: string, value: string]

/** As they were sent, without HTTP/2's own. */
function pairs({ rawHeaders }: IncomingMessage): Pair[] {
  const found: Pair[] = []
  for (let at = 0; at + 1 < rawHeaders.length; at += 2) {
    const [name = '', value = ''] = rawHeaders.slice(at, at + 2)
    if (!name.startsWith(':')) found.push([name, value])
  }
  return found
}

const tokens = (value: string | undefined): string[] =>
  (value ?? '')
    .toLowerCase()
    .split(',')
    .map((token) => token.trim())
    .filter((token) => token !== '')

/** A filter that lets through what goes from end to end. */
function endToEnd({ headers }: IncomingMessage): (name: string) => boolean {
  const named = new Set(tokens(headers.connection))
  return (name) => !HOP.has(name) && !named.has(name)
}

/** How the body of a message is delimited. Throws `InvalidArgument` for a coding that is not understood. */
export function framing(message: IncomingMessage): { chunked: boolean; length: string | undefined } {
  const { 'transfer-encoding': coding, 'content-length': length } = message.headers
  if (coding !== undefined && tokens(coding).join() !== 'chunked')
    throw new IceboxError('InvalidArgument', `the body has the transfer coding ${JSON.stringify(coding)}`, {
      remedy: 'Send it with `Transfer-Encoding: chunked` or with its length.',
    })
  return coding === undefined ? { chunked: false, length } : { chunked: true, length: undefined }
}

/** Whether a request brings a body, or may. */
export function hasBody(request: IncomingMessage): boolean {
  const { chunked, length } = framing(request)
  if (chunked || (length !== undefined && length !== '0')) return true
  return request.httpVersionMajor >= 2 && length === undefined && !request.readableEnded && !endedWithHead(request)
}

/** Of an HTTP/2 request: whether its head was all of it. */
function endedWithHead(request: IncomingMessage): boolean {
  if (!('stream' in request) || typeof request.stream !== 'object' || request.stream === null) return false
  return 'endAfterHeaders' in request.stream && request.stream.endAfterHeaders === true
}

export interface Passage {
  request: IncomingMessage
  address: Address
  /** The Host header to send; undefined: what the client sent. */
  host: string | undefined
  /** Lower-case names of the headers that carry secrets of ours. */
  secret: ReadonlySet<string>
  /** Whether an upgrade is passed on. */
  upgrade: boolean
}

/** The headers a service inside gets: names and values by turns. */
export function toGuest({ request, address, host, secret, upgrade }: Passage): string[] {
  const { headers } = request
  const passes = endToEnd(request)
  const { chunked, length } = framing(request)
  const authority = authorityOf(request)
  const kept: Pair[] = [['Host', host ?? authority ?? '']]
  const cookies: string[] = []
  for (const [name, value] of pairs(request)) {
    const lower = name.toLowerCase()
    if (!passes(lower) || FRAMING.has(lower) || FORWARDED.has(lower)) continue
    if (secret.has(lower) || lower.startsWith('e2b-') || lower === 'open-sandbox-api-key') continue
    // HTTP/2 may send them one by one; HTTP/1.1 has one header.
    if (lower === 'cookie') cookies.push(value)
    else kept.push([name, value])
  }
  if (cookies.length > 0) kept.push(['Cookie', cookies.join('; ')])
  kept.push(...forwarded(request, address))
  if (tokens(String(headers.te ?? '')).includes('trailers')) kept.push(['TE', 'trailers'])
  if (upgrade) kept.push(['Connection', 'Upgrade'], ['Upgrade', headers.upgrade ?? ''])
  else if (!hasBody(request)) kept.push(...(length === '0' || expectsLength(request) ? [LENGTH_0] : []))
  else if (length !== undefined) kept.push(['Content-Length', length])
  else {
    kept.push(['Transfer-Encoding', 'chunked'])
    if (chunked && headers.trailer !== undefined) kept.push(['Trailer', headers.trailer])
  }
  return kept.flat()
}

const LENGTH_0: Pair = ['Content-Length', '0']
const expectsLength = ({ method = '' }: IncomingMessage): boolean => ['POST', 'PUT', 'PATCH'].includes(method)

/**
 * Who asked, and how. A proxy on this machine is believed; of anybody else it is what is seen here that counts, since these
 * headers can be made up.
 */
function forwarded(request: IncomingMessage, { prefix }: Address): Pair[] {
  const { headers, socket } = request
  const peer = (socket.remoteAddress ?? '').replace(/^::ffff:/, '')
  const before = (name: string): string | undefined => {
    const value = isLoopback(peer) ? headers[name] : undefined
    return Array.isArray(value) ? value.join(', ') : value
  }
  const chain = [before('x-forwarded-for'), peer].filter((each) => each !== undefined && each !== '')
  const outer = before('x-forwarded-prefix') ?? ''
  const found: Pair[] = [
    ['X-Forwarded-For', chain.join(', ')],
    ['X-Forwarded-Host', before('x-forwarded-host') ?? authorityOf(request) ?? ''],
    ['X-Forwarded-Proto', before('x-forwarded-proto') ?? ('encrypted' in socket ? 'https' : 'http')],
  ]
  if (outer + prefix !== '') found.push(['X-Forwarded-Prefix', outer + prefix])
  return found
}

/** The headers of an answer as the client gets them: names and values by turns. */
export function toClient(answer: IncomingMessage, { prefix }: Address): string[] {
  const passes = endToEnd(answer)
  const { chunked } = framing(answer)
  // Where there is no body, a length would make the next hop wait for one.
  const hasLength = !chunked && answer.statusCode !== 204
  const kept = pairs(answer).filter(([name]) => {
    const lower = name.toLowerCase()
    if (prefix !== '' && OF_ORIGIN.has(lower)) return false
    return passes(lower) && (lower !== 'trailer' || chunked) && (lower !== 'content-length' || hasLength)
  })
  return kept.flat()
}

/** Trailers that may follow a body, as addTrailers takes them. */
export function trailers({ rawTrailers }: IncomingMessage): Record<string, string> {
  const found: Record<string, string> = {}
  for (let at = 0; at + 1 < rawTrailers.length; at += 2) {
    const [name = '', value = ''] = rawTrailers.slice(at, at + 2)
    const lower = name.toLowerCase()
    if (!HOP.has(lower) && !FRAMING.has(lower)) found[name] = value
  }
  return found
}
