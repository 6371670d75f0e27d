import type { IncomingMessage } from 'node:http'
import { isIP } from 'node:net'
import { IceboxError } from '@icebox/model'

/** `name:port`, `address:port` or `[address]:port` without the port; lower case, without a final dot. */
export function hostName(authority: string): string {
  const name = authority.startsWith('[')
    ? authority.slice(1, Math.max(authority.indexOf(']'), 1))
    : authority.replace(/:\d*$/, '')
  return name.toLowerCase().replace(/\.$/, '')
}

const isLoopback = (name: string): boolean =>
  name === 'localhost' || name === '::1' || (isIP(name) === 4 && name.startsWith('127.'))

const isWildcard = (address: string): boolean => address === '0.0.0.0' || address === '::'

/** The keys that a request shows, in any of the headers that clients send them in. */
export function keysOf({ headers }: IncomingMessage): string[] {
  const bearer = headers.authorization?.match(/^Bearer +(\S+) *$/i)?.[1]
  return [headers['open-sandbox-api-key'], headers['x-api-key'], bearer].filter((key) => typeof key === 'string')
}

/**
 * From where it may be called. Two things are kept out besides callers without a key: a web page whose name was rebound to this
 * machine's address (its requests carry that name as Host), and a web page of another origin (its requests carry Origin).
 */
export class Access {
  readonly #listen: string
  readonly #allowed: ReadonlySet<string>

  /** `allowedHosts`: names under which the server is reached besides loopback and the address it listens on. */
  constructor(options: { listen: string; allowedHosts: readonly string[] }) {
    this.#listen = hostName(options.listen.includes(':') ? `[${options.listen}]` : options.listen)
    this.#allowed = new Set(options.allowedHosts.map(hostName))
  }

  /** Throws `Forbidden`. */
  checkOrigin(request: IncomingMessage): void {
    const { host, origin } = request.headers
    if (host === undefined || !this.#isOurs(hostName(host)))
      throw new IceboxError('Forbidden', `the Host header names ${host ?? 'nothing'}, which is not this server`)
    if (origin !== undefined && !this.#isAllowedOrigin(origin))
      throw new IceboxError('Forbidden', `web pages of ${origin} may not call this server`)
  }

  #isOurs(name: string): boolean {
    if (isLoopback(name) || name === this.#listen || this.#allowed.has(name)) return true
    // On every address of the machine: any address will do, since rebinding needs a name.
    return isWildcard(this.#listen) && isIP(name) !== 0
  }

  #isAllowedOrigin(origin: string): boolean {
    const url = URL.parse(origin)
    return url !== null && this.#allowed.has(hostName(url.host))
  }
}
