import http from 'node:http'
import type { Duplex, Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { isPageOf, isWireError } from './answers.ts'
import { type CallOptions, Deadline } from './deadline.ts'
import { IceboxError, notUnderstood, unavailable } from './error.ts'
import { List } from './list.ts'

type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
export type Query = Record<string, string | number | boolean | readonly string[] | undefined>

export interface Call extends CallOptions {
  query?: Query | undefined
  headers?: Record<string, string> | undefined
  json?: unknown
  body?: Uint8Array | Readable | undefined
  /** Whether the same request may be sent again when the connection broke. Default: for GET. */
  idempotent?: boolean
}

const RETRY_AFTER_MS = [50, 200]
const BROKEN = new Set(['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT'])
const NOBODY_THERE = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH'])
/** The most that the server gives at once. */
const PAGE_SIZE = 1000

/** Asks the server to hold a lifecycle call back until the resource has settled, the longest that it accepts. */
export const UNTIL_SETTLED = { prefer: 'wait=3600' }
export const NDJSON = 'application/x-ndjson'

/** A path of the API from its parts, each encoded. */
export const route = (...parts: string[]): string => `/v1/${parts.map(encodeURIComponent).join('/')}`

/** HTTP to one server, over kept-alive connections. node:http and not fetch: a call through it costs half the time. */
export class Connection {
  readonly url: string
  readonly #base: URL
  readonly #apiKey: string | undefined
  #transport: { request: typeof http.request; agent: http.Agent } | undefined

  constructor(settings: { url: string; apiKey: string | undefined }) {
    this.url = settings.url
    this.#apiKey = settings.apiKey
    const base = URL.canParse(settings.url) ? new URL(settings.url) : undefined
    if (base === undefined || (base.protocol !== 'http:' && base.protocol !== 'https:')) {
      const message = `not the url of a server: ${JSON.stringify(settings.url)}`
      const remedy = 'Give an address such as http://127.0.0.1:7070 (`--url`, ICEBOX_URL).'
      throw new IceboxError(undefined, { code: 'InvalidArgument', message, remedy })
    }
    this.#base = base
    if (base.protocol === 'http:')
      this.#transport = { request: http.request, agent: new http.Agent({ keepAlive: true }) }
  }

  /** Gives the answer's head once it says that all went well; the caller reads the body. */
  async stream(method: Method, path: string, call: Call = {}): Promise<http.IncomingMessage> {
    const deadline = new Deadline(call)
    try {
      return await this.#exchange(method, path, call, deadline)
    } finally {
      deadline.met()
    }
  }

  /** The JSON answer; `isA` says whether it is one of this API. */
  async json<T>(method: Method, path: string, isA: (answer: unknown) => answer is T, call: Call = {}): Promise<T> {
    const text = await this.text(method, path, call)
    const answer = parse(text)
    if (!isA(answer)) throw notUnderstood(`${method} ${path} answered ${JSON.stringify(text.slice(0, 200))}`)
    return answer
  }

  async text(method: Method, path: string, call: Call = {}): Promise<string> {
    const deadline = new Deadline(call)
    try {
      const response = await this.#exchange(method, path, call, deadline)
      return await readText(response).catch((thrown: unknown) => {
        deadline.check()
        throw this.broken(thrown)
      })
    } finally {
      deadline.met()
    }
  }

  /** A call whose answer has no body. */
  async send(method: Method, path: string, call: Call = {}): Promise<void> {
    const response = await this.stream(method, path, call)
    response.resume()
  }

  /** A deletion; one that was asked for again after the connection broke finds nothing, which is what was wanted. */
  async delete(path: string, call: Call = {}): Promise<void> {
    let sent = false
    try {
      await this.send('DELETE', path, call)
      return
    } catch (thrown) {
      const errno = thrown instanceof IceboxError ? errnoOf(thrown.cause) : undefined
      if (errno === undefined || !BROKEN.has(errno)) throw thrown
      sent = !NOBODY_THERE.has(errno)
    }
    await this.send('DELETE', path, { ...call, idempotent: true }).catch((thrown: unknown) => {
      if (!(sent && thrown instanceof IceboxError && thrown.code === 'NotFound')) throw thrown
    })
  }

  /** The items of a list, each made into what callers get. */
  list<T, R>(path: string, isA: (item: unknown) => item is T, call: Call, make: (item: T) => R): List<R> {
    return new List(async (after) => {
      const query = { ...call.query, pageSize: PAGE_SIZE, after }
      const { items, pagination } = await this.json('GET', path, isPageOf(isA), { ...call, query })
      return { items: items.map(make), next: pagination.nextToken }
    })
  }

  /** A raw byte stream by HTTP Upgrade. Either half can be ended on its own. */
  async upgrade(path: string, protocol: string, call: CallOptions = {}): Promise<Duplex> {
    const headers = { connection: 'Upgrade', upgrade: protocol }
    const deadline = new Deadline(call)
    try {
      const response = await this.#exchange('GET', path, { ...call, headers, idempotent: false }, deadline)
      if (response.statusCode === 101) return response.socket
      response.destroy()
      throw notUnderstood(`GET ${path} answered ${response.statusCode} to an upgrade`)
    } finally {
      deadline.met()
    }
  }

  /** The error for a connection that could not be made or broke. */
  broken(cause: unknown): IceboxError {
    const errno = errnoOf(cause) ?? 'ECONNRESET'
    return NOBODY_THERE.has(errno)
      ? unavailable(`no Icebox server answers at ${this.url} (${errno})`, cause)
      : unavailable(`the connection to ${this.url} broke before the answer was complete (${errno})`, cause)
  }

  async #exchange(method: Method, path: string, call: Call, deadline: Deadline): Promise<http.IncomingMessage> {
    for (let attempt = 0; ; attempt += 1) {
      deadline.check()
      let response: http.IncomingMessage
      try {
        response = await this.#send(method, path, call, deadline.signal)
      } catch (thrown) {
        deadline.check()
        const errno = errnoOf(thrown)
        const sourceFailed = call.body !== undefined && 'errored' in call.body && call.body.errored === thrown
        if (errno === undefined || sourceFailed) throw thrown
        const pause = RETRY_AFTER_MS[attempt]
        if (!(call.idempotent ?? method === 'GET') || !BROKEN.has(errno) || pause === undefined)
          throw this.broken(thrown)
        await sleep(pause)
        continue
      }
      if ((response.statusCode ?? 0) < 400) return response
      throw await errorOf(response)
    }
  }

  async #open(): Promise<{ request: typeof http.request; agent: http.Agent }> {
    // TLS is loaded only by those who need it.
    const https = await import('node:https')
    return { request: https.request, agent: new https.Agent({ keepAlive: true }) }
  }

  async #send(
    method: Method,
    path: string,
    call: Call,
    signal: AbortSignal | undefined,
  ): Promise<http.IncomingMessage> {
    this.#transport ??= await this.#open()
    const { request, agent } = this.#transport
    const headers: http.OutgoingHttpHeaders = { ...call.headers }
    if (this.#apiKey !== undefined) headers['x-api-key'] = this.#apiKey
    const source = call.body instanceof Uint8Array ? undefined : call.body
    let body: string | Uint8Array | undefined
    if (call.json !== undefined) {
      body = JSON.stringify(call.json)
      headers['content-type'] = 'application/json'
    } else if (call.body !== undefined) {
      if (call.body instanceof Uint8Array) body = call.body
      headers['content-type'] ??= 'application/octet-stream'
    }
    if (source === undefined && method !== 'GET')
      headers['content-length'] = body === undefined ? 0 : Buffer.byteLength(body)
    const upgrading = headers.upgrade !== undefined
    const options: http.RequestOptions & { allowHalfOpen?: boolean } = {
      method,
      headers,
      protocol: this.#base.protocol,
      hostname: this.#base.hostname.replace(/^\[|\]$/g, ''),
      path: `${this.#base.pathname.replace(/\/$/, '')}${path}${queryString(call.query)}`,
      // A raw stream may end one half and read on; such a socket must not come from or go to the pool.
      ...(upgrading ? { agent: false, allowHalfOpen: true } : { agent }),
    }
    if (this.#base.port !== '') options.port = this.#base.port
    if (signal !== undefined) options.signal = signal
    return new Promise((resolve, reject) => {
      const outgoing = request(options)
      outgoing.on('response', resolve)
      outgoing.on('error', reject)
      if (upgrading)
        outgoing.on('upgrade', (response, socket, head) => {
          if (head.length > 0) socket.unshift(head)
          resolve(response)
        })
      if (source === undefined) {
        outgoing.end(body)
        return
      }
      // A source that fails must not look like one that has ended; a server that answers early wants no more of it.
      source.on('error', (error) => outgoing.destroy(error))
      outgoing.on('close', () => source.destroy())
      source.pipe(outgoing)
    })
  }
}

/** The code of a failed connection; undefined for anything else, such as an argument that Node refuses. */
const errnoOf = (thrown: unknown): string | undefined =>
  thrown instanceof Error && 'code' in thrown && typeof thrown.code === 'string' && !thrown.code.startsWith('ERR_')
    ? thrown.code
    : undefined

function queryString(query: Query | undefined): string {
  if (query === undefined) return ''
  const parameters = new URLSearchParams()
  for (const [name, value] of Object.entries(query)) {
    if (value === undefined) continue
    if (typeof value === 'object') for (const one of value) parameters.append(name, one)
    else parameters.append(name, String(value))
  }
  const text = parameters.toString()
  return text === '' ? '' : `?${text}`
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

async function readText(response: Readable): Promise<string> {
  let text = ''
  response.setEncoding('utf8')
  for await (const chunk of response) text += chunk
  return text
}

async function errorOf(response: http.IncomingMessage): Promise<IceboxError> {
  const status = response.statusCode ?? 500
  const text = await readText(response).catch(() => '')
  const body = parse(text)
  const header = response.headers['x-request-id']
  const requestId = Array.isArray(header) ? header[0] : header
  if (isWireError(body)) return new IceboxError(status, body, { requestId })
  return notUnderstood(`status ${status}, ${JSON.stringify(text.slice(0, 200))}`)
}
