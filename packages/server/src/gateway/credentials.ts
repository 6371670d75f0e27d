import type { IncomingMessage } from 'node:http'
import type { Keys, Traffic } from '@icebox/control'
import { IceboxError, type Sandbox } from '@icebox/model'
import { isSameSecret, KEY_HEADERS, keysOf } from '../access.ts'
import { onceAborted } from '../client.ts'

/** The header with a sandbox's traffic token. */
export const TOKEN_HEADER = 'e2b-traffic-access-token'
/** Headers of E2B's own services with a sandbox's access token. */
const ACCESS_HEADER = 'x-access-token'
/** What every key of ours looks like, revoked ones too. */
const KEY = /\be2b_[0-9a-f]{40}\b/

/** What a request carries to be let in by. */
export class Credentials {
  readonly #request: IncomingMessage
  readonly #projects: ReadonlySet<string>
  readonly #keyHeaders: ReadonlySet<string>
  readonly #revocations: readonly AbortSignal[]

  private constructor(
    request: IncomingMessage,
    projects: ReadonlySet<string>,
    keyHeaders: ReadonlySet<string>,
    revocations: readonly AbortSignal[],
  ) {
    this.#revocations = revocations
    this.#request = request
    this.#projects = projects
    this.#keyHeaders = keyHeaders
  }

  static async of(request: IncomingMessage, keys: Keys): Promise<Credentials> {
    const projects = new Set<string>()
    const headers = new Set<string>()
    const revocations: AbortSignal[] = []
    for (const { header, key } of keysOf(request)) {
      const owner = await keys.authenticate(key)
      if (owner === undefined) continue
      projects.add(owner.project)
      if (owner.revoked !== undefined) revocations.push(owner.revoked)
      headers.add(header)
    }
    // Also in what is no key as it stands, such as the second of two headers. Others may be keys of the service inside.
    for (const [index, name] of request.rawHeaders.entries())
      if (index % 2 === 0 && KEY_HEADERS.has(name.toLowerCase()) && KEY.test(request.rawHeaders[index + 1] ?? ''))
        headers.add(name.toLowerCase())
    return new Credentials(request, projects, headers, revocations)
  }

  /** Whether there may be a key that `isFor` some sandbox. */
  get hasKey(): boolean {
    return this.#projects.size > 0
  }

  /** Calls the listener once when one of the keys is revoked. Gives what takes the listener back. */
  onceRevoked(listener: () => void): () => void {
    const forgets = this.#revocations.map((revoked) => onceAborted(revoked, listener))
    return () => {
      for (const forget of forgets) forget()
    }
  }

  /** Whether a valid key of the sandbox's project is among them. */
  isFor({ metadata }: Sandbox): boolean {
    return this.#projects.has(metadata.namespace)
  }

  /** Throws `Forbidden` unless a port of the sandbox that is not public may be reached with them. */
  requireFor(sandbox: Sandbox, traffic: Traffic): void {
    if (this.isFor(sandbox)) return
    const given = this.#request.headers[TOKEN_HEADER]
    if (typeof given !== 'string')
      throw forbidden(`The sandbox is secured with a traffic access token, and the header ${TOKEN_HEADER} is missing`)
    if (!isSameSecret(given, traffic.tokens(sandbox).traffic))
      throw forbidden(`The sandbox is secured with a traffic access token, and the one in ${TOKEN_HEADER} is not it`)
  }

  /** Lower-case names of the headers whose values are nothing for the sandbox. */
  secretHeaders(sandbox: Sandbox, traffic: Traffic): ReadonlySet<string> {
    const secret = new Set(this.#keyHeaders)
    const access = this.#request.headers[ACCESS_HEADER]
    if (typeof access === 'string' && isSameSecret(access, traffic.tokens(sandbox).access)) secret.add(ACCESS_HEADER)
    return secret
  }
}

const forbidden = (message: string): IceboxError => new IceboxError('Forbidden', message)
