import { IceboxError, type Reservation } from '@icebox/model'
import { z } from 'zod'
import { fetchDocument, isLoopback, type Request, request } from '../../outbound/http.ts'
import type { AddressPolicy } from '../../outbound/policy.ts'
import { type Credentials, dockerConfigFile } from './credentials.ts'

const MAX_TOKEN_BYTES = 1_048_576

export interface Challenge {
  scheme: 'basic' | 'bearer'
  parameters: Record<string, string>
}

const Token = z.object({ token: z.string().optional(), access_token: z.string().optional() })

const SPACE = ' \t,'
const ENDS_WORD = ` \t,="`

/** What a registry that refused asks for: of several challenges Bearer, else Basic. Undefined when it is neither. */
export function parseChallenge(header: string): Challenge | undefined {
  const found: Challenge[] = []
  let current: Challenge | undefined
  let at = 0
  // Every character is passed once, whatever the registry sends.
  const take = (isPart: (character: string) => boolean): string => {
    const start = at
    while (at < header.length && isPart(header.charAt(at))) at++
    return header.slice(start, at)
  }
  const value = (): string => {
    if (header.charAt(at) !== '"') return take((character) => !SPACE.includes(character))
    const parts: string[] = []
    for (at++; at < header.length && header.charAt(at) !== '"'; at++) {
      if (header.charAt(at) === '\\') at++
      parts.push(header.charAt(at))
    }
    at++
    return parts.join('')
  }
  while (at < header.length) {
    take((character) => SPACE.includes(character))
    const word = take((character) => !ENDS_WORD.includes(character)).toLowerCase()
    take((character) => character === ' ' || character === '\t')
    if (header.charAt(at) === '=') {
      at++
      take((character) => character === ' ' || character === '\t')
      const given = value()
      if (current !== undefined && word !== '') current.parameters[word] = given
    } else if (word !== '') {
      current = word === 'basic' || word === 'bearer' ? { scheme: word, parameters: {} } : undefined
      if (current !== undefined) found.push(current)
    } else at++
  }
  return found.find(({ scheme }) => scheme === 'bearer') ?? found[0]
}

/** A registry that asks for authorisation. */
export interface Asking {
  /** As people call it. */
  registry: string
  /** Where the challenge came from. */
  origin: string
  scope: string
  credentials: Credentials | undefined
  policy: AddressPolicy
  held: Reservation
}

/** The Authorization header that answers a challenge. Throws `RegistryUnreachable`, `Transient`. */
export async function authorize(challenge: Challenge, asking: Asking, signal: AbortSignal): Promise<string> {
  const { registry, credentials } = asking
  if (credentials?.kind === 'bearer') return `Bearer ${credentials.token}`
  if (challenge.scheme === 'bearer') return `Bearer ${await fetchToken(challenge.parameters, asking, signal)}`
  if (credentials?.kind === 'password') return basic(credentials)
  throw refused(registry, 'it asks for a user and password', credentials)
}

const basic = ({ user, password }: Credentials & { kind: 'password' }): string =>
  `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`

/** In words for people: what was shown, and where more could be given. */
export function refused(registry: string, why: string, credentials: Credentials | undefined): IceboxError {
  const shown = credentials === undefined ? 'has none for it' : 'has credentials for it, which it does not accept'
  return new IceboxError(
    'RegistryUnreachable',
    `${registry} refuses: ${why}; the docker config file ${dockerConfigFile()} ${shown}`,
    {
      remedy: 'Check the name of the image, and log in with `docker login` or by the docker config file.',
      details: { registry },
    },
  )
}

async function fetchToken(
  { realm = '', service, scope: asked }: Record<string, string>,
  { registry, origin, scope, credentials, policy, held }: Asking,
  signal: AbortSignal,
): Promise<string> {
  const url = URL.parse(realm)
  if (url === null) throw refused(registry, 'its token server has no address', credentials)
  // Only a registry of this machine, which has no TLS itself, may have such a token server.
  const isPlain = url.protocol === 'http:' && isLoopback(url.hostname) && origin.startsWith('http:')
  if (url.protocol !== 'https:' && !isPlain)
    throw refused(registry, `its token server ${url.origin} is not protected by TLS`, credentials)
  const parameters = { ...(service === undefined ? {} : { service }), scope: asked || scope }
  const { answer, body } = await fetchDocument(
    (until) => request(url, tokenRequest(url, parameters, credentials), policy, until),
    { limit: MAX_TOKEN_BYTES, what: `the token of ${url.host}`, held },
    signal,
  )
  if (answer.status !== 200)
    throw refused(registry, `its token server answers with status ${answer.status}`, credentials)
  let token: string | undefined
  try {
    const parsed = Token.parse(JSON.parse(body.toString()))
    token = parsed.token || parsed.access_token
  } catch {
    // Treated as an answer without a token: its words may be a secret.
  }
  if (!token) throw refused(registry, 'its token server gives no token', credentials)
  return token
}

function tokenRequest(url: URL, parameters: Record<string, string>, credentials: Credentials | undefined): Request {
  if (credentials?.kind === 'identity') {
    const form = { grant_type: 'refresh_token', client_id: 'icebox', refresh_token: credentials.token, ...parameters }
    return {
      method: 'POST',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      body: new URLSearchParams(form).toString(),
    }
  }
  for (const [key, value] of Object.entries(parameters)) url.searchParams.set(key, value)
  return credentials?.kind === 'password' ? { headers: { authorization: basic(credentials) } } : {}
}
