import { createHash, type Hash } from 'node:crypto'
import { isSameSecret } from '../../access.ts'
import type { EnvdSandbox, Request } from './call.ts'
import { RestError } from './errors.ts'

/** Characters of a SHA-256 in Base64 without the padding. */
const SIGNATURE_LENGTH = 43
/** Bytes of a path that may be signed, as many as a system takes; and of a name. */
const LONGEST = { path: 4096, user: 256 }

/** What the owner of the token signs to give somebody else one file. `expiration`: seconds since 1970, as in the query. */
export function signatureOf(file: {
  path: string
  operation: 'read' | 'write'
  user: string
  token: string
  expiration?: string | undefined
}): string {
  const { path, operation, user, token, expiration } = file
  const signed = [path, operation, user, token, ...(expiration === undefined ? [] : [expiration])].join(':')
  return signatureText(createHash('sha256').update(signed))
}

/**
 * Tells of a token whether its owner signed that this is done with this file, at whatever time. What is the same for every token is hashed once.
 * Undefined when nobody can have signed it.
 */
export function signerOf(method: string | undefined, query: URLSearchParams): ((token: string) => boolean) | undefined {
  const [path, user] = [query.get('path') ?? '', query.get('username') ?? '']
  if (Buffer.byteLength(path) > LONGEST.path || Buffer.byteLength(user) > LONGEST.user) return undefined
  const signature = query.get('signature') ?? ''
  const expiration = query.get('signature_expiration') ?? undefined
  const end = expiration === undefined ? '' : `:${Number(expiration)}`
  const begun = createHash('sha256').update(`${path}:${method === 'GET' ? 'read' : 'write'}:${user}:`)
  return (token) => isSameSecret(signature, signatureText(begun.copy().update(token + end)))
}

const signatureText = (hash: Hash): string => `v1_${hash.digest('base64').slice(0, SIGNATURE_LENGTH)}`

/** Throws a `RestError` with 401 when the request may not reach the sandbox. */
export function checkAccess(request: Request, pathname: string, query: URLSearchParams, sandbox: EnvdSandbox): void {
  if (!sandbox.secure) return
  const header = request.headers['x-access-token']
  const token = typeof header === 'string' && header !== '' ? header : undefined
  if (token !== undefined && isSameSecret(token, sandbox.accessToken)) return
  if (pathname !== '/files' || (request.method !== 'GET' && request.method !== 'POST'))
    throw new RestError(401, 'unauthorized access, please provide a valid access token or method signing if supported')
  if (token !== undefined) throw new RestError(401, 'access token present in header but does not match')
  const signature = query.get('signature')
  if (signature === null) throw new RestError(401, 'missing signature query parameter')
  const expiration = query.get('signature_expiration') ?? undefined
  if (expiration !== undefined && !/^-?\d{1,15}$/.test(expiration))
    throw new RestError(400, 'signature_expiration must be a number of seconds')
  if (!signerOf(request.method, query)?.(sandbox.accessToken)) throw new RestError(401, 'invalid signature')
  if (expiration !== undefined && Number(expiration) < Math.floor(Date.now() / 1000))
    throw new RestError(401, 'signature is already expired')
}

/** The user of HTTP's Basic scheme; its password means nothing here. */
export function basicUser(authorization: string | undefined): string | undefined {
  const credentials = authorization?.match(/^basic +([A-Za-z0-9+/=_-]+) *$/i)?.[1]
  if (credentials === undefined) return undefined
  const text = Buffer.from(credentials, 'base64').toString()
  const colon = text.indexOf(':')
  return colon <= 0 ? undefined : text.slice(0, colon)
}
