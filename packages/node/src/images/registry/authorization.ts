import { IceboxError } from '@icebox/model'
import { z } from 'zod'
import { type Credentials, dockerConfigFile } from './credentials.ts'
import { bodyOf, isLoopback, type Request, request } from './http.ts'

const MAX_TOKEN_BYTES = 1_048_576

export interface Challenge {
  scheme: 'basic' | 'bearer'
  parameters: Record<string, string>
}

const Token = z.object({ token: z.string().optional(), access_token: z.string().optional() })

/** What a registry that refused asks for: of several challenges Bearer, else Basic. Undefined when it is neither. */
export function parseChallenge(header: string): Challenge | undefined {
  const found: Challenge[] = []
  const form = /(?:^|,)\s*([A-Za-z]+)(?=\s|,|$)|([A-Za-z_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))/g
  let current: Challenge | undefined
  for (const [, scheme, key, quoted, bare] of header.matchAll(form)) {
    if (scheme !== undefined) {
      const name = scheme.toLowerCase()
      current = name === 'basic' || name === 'bearer' ? { scheme: name, parameters: {} } : undefined
      if (current !== undefined) found.push(current)
    } else if (key !== undefined && current !== undefined)
      current.parameters[key.toLowerCase()] = quoted?.replace(/\\(.)/g, '$1') ?? bare ?? ''
  }
  return found.find(({ scheme }) => scheme === 'bearer') ?? found[0]
}

/** The Authorization header that answers a challenge. Throws `RegistryUnreachable`, `Transient`. */
export async function authorize(
  challenge: Challenge,
  registry: string,
  scope: string,
  credentials: Credentials | undefined,
  signal: AbortSignal,
): Promise<string> {
  if (credentials?.kind === 'bearer') return `Bearer ${credentials.token}`
  if (challenge.scheme === 'bearer')
    return `Bearer ${await fetchToken(challenge.parameters, registry, scope, credentials, signal)}`
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
  registry: string,
  scope: string,
  credentials: Credentials | undefined,
  signal: AbortSignal,
): Promise<string> {
  if (!URL.canParse(realm)) throw refused(registry, 'its token server has no address', credentials)
  const url = new URL(realm)
  if (url.protocol !== 'https:' && !(url.protocol === 'http:' && isLoopback(url.hostname)))
    throw refused(registry, `its token server ${url.origin} is not protected by TLS`, credentials)
  const parameters = { ...(service === undefined ? {} : { service }), scope: asked || scope }
  const answer = await request(url, tokenRequest(url, parameters, credentials), signal)
  const body = await bodyOf(answer, MAX_TOKEN_BYTES, `the token of ${url.host}`, signal)
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
