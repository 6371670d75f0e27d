import type { IncomingMessage, OutgoingHttpHeaders } from 'node:http'
import type { Http2ServerRequest } from 'node:http2'
import { posix } from 'node:path'
import { Code, ConnectError, createContextKey, type HandlerContext } from '@connectrpc/connect'
import { type Guest, IceboxError, type Reservation } from '@icebox/model'

export type Request = IncomingMessage | Http2ServerRequest
/** What the responses of HTTP/1.1 and HTTP/2 have in common, as far as it is needed. */
export interface Response extends NodeJS.EventEmitter {
  readonly headersSent: boolean
  readonly destroyed: boolean
  setHeader(name: string, value: string): unknown
  writeHead(status: number, headers?: OutgoingHttpHeaders): unknown
  addTrailers(trailers: OutgoingHttpHeaders): void
  write(chunk: Uint8Array): boolean
  end(): unknown
  end(text: string): unknown
  destroy(): unknown
}

/** What the façade must know of a sandbox. */
export interface EnvdSandbox {
  id: string
  /** Whether it runs now: its health, which must not resume it. */
  running: boolean
  /** Whether requests need the access token. */
  secure: boolean
  accessToken: string
  /** What it was made from. */
  template: string
  /** Environment of its execs, besides envd's own variables. */
  env: Readonly<Record<string, string>>
  /** Of its image; empty when that does not say. */
  defaults: { user: string; workingDir: string }
}

/** One request to a sandbox that runs. */
export interface Call {
  sandbox: EnvdSandbox
  /** The run it is answered by. */
  execution: string
  guest: Guest
  /** The user that was named; undefined: the sandbox's. */
  user: string | undefined
  /** What is kept for the request counts in it, and is given back when that is answered. */
  hold(): Reservation
}

export const CALL = createContextKey<Call | undefined>(undefined)

export function callOf(context: HandlerContext): Call {
  const call = context.values.get(CALL)
  if (call === undefined) throw new ConnectError('the request came by another way', Code.Internal)
  return call
}

/** Files are read and written with root's rights, as envd does, and are then the user's. */
export const accessOf = ({ user, sandbox }: Call): { user: string; privileged: true } => ({
  user: user ?? (sandbox.defaults.user || 'root'),
  privileged: true,
})

/** Where a process starts that is not told: where the image says, if it does, and another user than the image's at home. */
export const workingDirOf = ({ user, sandbox: { defaults } }: Call): string =>
  user === undefined || user === defaults.user ? defaults.workingDir : '.'

/** A path as clients give it, as the guest takes it: absolute, or relative to the home of the user. */
export function guestPath(path: string, call: Call): string {
  if (path === '') return workingDirOf(call) || '.'
  if (path.startsWith('~')) {
    if (path.length > 1 && path[1] !== '/')
      throw new IceboxError('InvalidArgument', `${path}: the home of another user has to be written out`)
    path = path.slice(1).replace(/^\/+/, '')
  }
  const normal = posix.normalize(path)
  return normal.length > 1 ? normal.replace(/\/$/, '') : normal
}

/** Milliseconds. */
const DEADLINE = {
  /** Looking something up, starting something. */
  short: 30_000,
  /** What moves bytes or whole trees. */
  long: 3_600_000,
}

/** Fires with the client's going away, and after the time that such work may take. */
export const bounded = (signal: AbortSignal, work: keyof typeof DEADLINE): AbortSignal =>
  AbortSignal.any([signal, AbortSignal.timeout(DEADLINE[work])])
