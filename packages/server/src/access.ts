import { hash, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { isIP } from 'node:net'
import { IceboxError } from '@icebox/model'

const digest = (text: string): Buffer => hash('sha256', text, 'buffer')

/** Whether two secrets are the same, without telling by its time where they differ. */
export const isSameSecret = (given: string, wanted: string): boolean => timingSafeEqual(digest(given), digest(wanted))

/** `name:port`, `address:port` or `[address]:port` without the port; lower case, without a final dot. */
export function hostName(authority: string): string {
  const name = authority.startsWith('[')
    ? authority.slice(1, Math.max(authority.indexOf(']'), 1))
    : authority.replace(/:\d*$/, '')
  return name.toLowerCase().replace(/\.$/, '')
}

/** Whether a name or address means this machine itself. */
export const isLoopback = (name: string): boolean =>
  name === 'localhost' || name.endsWith('.localhost') || name === '::1' || (isIP(name) === 4 && name.startsWith('127.'))

/** Whether it stands for every address of the machine. */
const isWildcard = (address: string): boolean => address === '0.0.0.0' || address === '::'

/** What the client called the server: the authority of HTTP/2, the Host header of HTTP/1.1. */
export function authorityOf({ headers }: IncomingMessage): string | undefined {
  const authority = headers[':authority']
  return typeof authority === 'string' ? authority : headers.host
}

/** The headers that may carry an API key as their whole value. */
const PLAIN = ['open-sandbox-api-key', 'x-api-key']
/** Those that may carry one, in lower case. */
export const KEY_HEADERS: ReadonlySet<string> = new Set([...PLAIN, 'authorization'])

/** The API keys that a request carries, and by which headers. */
export function keysOf({ headers }: IncomingMessage): { header: string; key: string }[] {
  const found: { header: string; key: string }[] = []
  for (const header of PLAIN) {
    const key = headers[header]
    if (typeof key === 'string') found.push({ header, key })
  }
  const bearer = headers.authorization?.match(/^Bearer +(\S+) *$/i)?.[1]
  if (bearer !== undefined) found.push({ header: 'authorization', key: bearer })
  return found
}

export interface AccessOptions {
  listen: string
  /** Names under which the server is reached besides loopback and the address it listens on. */
  allowedHosts: readonly string[]
  /** Domains all of whose names are the server's. */
  domains?: readonly string[]
  /** Origins whose web pages may call; `*`: all. */
  corsOrigins?: readonly string[]
}

/**
 * From where it may be called. Two things are kept out besides callers without a key: a web page whose name was rebound to this
 * machine's address (its requests carry that name as Host), and a web page of another origin (its requests carry Origin).
 */
export class Access {
  readonly #listen: string
  readonly #allowed: ReadonlySet<string>
  readonly #domains: readonly string[]
  readonly #origins: ReadonlySet<string>

  constructor({ listen, allowedHosts, domains = [], corsOrigins = [] }: AccessOptions) {
    this.#listen = hostName(listen.includes(':') ? `[${listen}]` : listen)
    this.#allowed = new Set([...allowedHosts, ...domains].map(hostName))
    this.#domains = domains.map(hostName)
    this.#origins = new Set(corsOrigins)
  }

  /** Throws `Forbidden` unless the request names this server. */
  checkHost(request: IncomingMessage): void {
    const host = authorityOf(request)
    if (host === undefined || !this.#isOurs(hostName(host)))
      throw new IceboxError('Forbidden', `the Host header names ${host ?? 'nothing'}, which is not this server`)
  }

  /** Throws `Forbidden` for web pages that may not call the API. */
  checkOrigin({ headers: { origin } }: IncomingMessage): void {
    if (origin !== undefined && !this.isCorsOrigin(origin) && !this.#isAllowedOrigin(origin))
      throw new IceboxError('Forbidden', `web pages of ${origin} may not call this server`)
  }

  /** Whether web pages of the origin may call the API and read its answers. */
  isCorsOrigin(origin: string): boolean {
    return this.#origins.has(origin) || this.#origins.has('*')
  }

  #isOurs(name: string): boolean {
    if (isLoopback(name) || name === this.#listen || this.#allowed.has(name)) return true
    if (this.#domains.some((domain) => name.endsWith(`.${domain}`))) return true
    // On every address of the machine: any address will do, since rebinding needs a name.
    return isWildcard(this.#listen) && isIP(name) !== 0
  }

  #isAllowedOrigin(origin: string): boolean {
    const url = URL.parse(origin)
    return url !== null && this.#allowed.has(hostName(url.host))
  }
}
