import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Access } from './access.ts'

const METHODS = 'GET, HEAD, POST, PUT, PATCH, DELETE'
/** Seconds for which a browser need not ask again. */
const REMEMBER = '600'

/**
 * Lets web pages of the configured origins call the API and read its answers. They have no credentials but the headers they set
 * themselves. True when the request was a browser's question beforehand, which is answered then.
 */
export function allowOrigin(access: Access, request: IncomingMessage, response: ServerResponse): boolean {
  const { origin, 'access-control-request-method': asked, 'access-control-request-headers': headers } = request.headers
  if (origin === undefined || !access.isCorsOrigin(origin)) return false
  response.setHeader('access-control-allow-origin', origin)
  response.setHeader('vary', 'Origin')
  if (request.method !== 'OPTIONS' || asked === undefined) {
    response.setHeader('access-control-expose-headers', '*')
    return false
  }
  response.setHeader('access-control-allow-methods', METHODS)
  if (headers !== undefined) response.setHeader('access-control-allow-headers', headers)
  response.setHeader('access-control-max-age', REMEMBER)
  response.writeHead(204).end()
  return true
}
