import { hash, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { isIP } from 'node:net'
import { IceboxError } from '@icebox/model'

const digest = (text: string): Buffer => hash('sha256', text, 'buffer')

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

/**
 * Who may call. Two things are kept out besides callers without the key: a web page whose name was rebound to this
 * machine's address (its requests carry that name as Host), and a web page of another origin (its requests carry Origin).
 */
export class Access {
  readonly #key: Buffer
  readonly #listen: string
  readonly #allowed: ReadonlySet<string>

  /** `allowedHosts`: names under which the server is reached besides loopback and the address it listens on. */
  constructor(options: { key: string; listen: string; allowedHosts: readonly string[] }) {
    if (options.key.length === 0) throw new TypeError('an empty key would let everybody in')
    this.#key = digest(options.key)
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

  /** Throws `Unauthorized`. Takes as long for a wrong key as for the right one. */
  checkKey(request: IncomingMessage): void {
    const { headers } = request
    const bearer = headers.authorization?.match(/^Bearer +(\S+) *$/i)?.[1]
    const given = [headers['open-sandbox-api-key'], headers['x-api-key'], bearer].filter(
      (key) => typeof key === 'string',
    )
    if (given.length === 0) throw new IceboxError('Unauthorized', 'the request carries no API key')
    if (!given.some((key) => timingSafeEqual(digest(key), this.#key)))
      throw new IceboxError('Unauthorized', 'the API key is not the one of this server')
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
