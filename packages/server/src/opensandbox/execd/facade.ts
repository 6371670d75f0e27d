import type { IncomingMessage } from 'node:http'
import { type Guest, IceboxError, type Reservation, type Sandbox } from '@icebox/model'
import type { FastifyBaseLogger, FastifyReply, FastifyRequest } from 'fastify'
import { isSameSecret } from '../../access.ts'
import { createApp } from '../../app.ts'
import type { App } from '../../context.ts'
import { DEADLINE, within } from '../../deadline.ts'
import type { Facade, Place } from '../../gateway/facade.ts'
import { RequestMemory } from '../../memory.ts'
import { Streams } from '../../stream.ts'
import { codeRoutes } from './code.ts'
import { commandRoutes } from './commands.ts'
import { directoryRoutes } from './directories.ts'
import { downloadRoutes } from './download.ts'
import { egressRoutes } from './egress.ts'
import { reaching, sendExecdFailure } from './failure.ts'
import { fileRoutes } from './files.ts'
import { metricsRoutes } from './metrics.ts'
import { sessionRoutes } from './sessions.ts'
import { unsupportedRoutes } from './unsupported.ts'
import { uploadRoutes } from './upload.ts'

/** The port on which clients of OpenSandbox look for execd. */
export const EXECD_PORT = 44_772
/** Carries the token of a sandbox with secured access. */
export const EXECD_TOKEN_HEADER = 'x-execd-access-token'

export interface ExecdOptions {
  /** The agent of a sandbox, which is resumed first where it asks for that. `NotFound`, `InvalidState` when it cannot be reached. */
  reach(sandbox: string, signal: AbortSignal): Promise<{ guest: Guest; sandbox: Sandbox }>
  /** Who runs the commands of a sandbox that ask for nobody, as in an exec; empty: root. */
  user(sandbox: Sandbox, signal: AbortSignal): Promise<string>
  /** The token that calls for the sandbox have to carry; undefined: none. `NotFound` when there is no such sandbox. */
  token(sandbox: string, signal: AbortSignal): Promise<string | undefined>
  /** Fires when the server begins to close: streams end, what they show goes on. */
  closing: AbortSignal
  /** What requests hold. Default: one of the façade's own. */
  memory?: RequestMemory
  /** Gets what should not happen. */
  log?: Pick<FastifyBaseLogger, 'error'>
}

/** What the routes work with. */
export interface Execd {
  /** The agent of the sandbox that a request is for. */
  guest(request: FastifyRequest, signal: AbortSignal): Promise<Guest>
  /** The same, and with whose rights the request touches files: those of the user that it names, else of whom commands are run by. */
  files(request: FastifyRequest, signal: AbortSignal): Promise<{ guest: Guest; as: { user?: string } }>
  readonly streams: Streams
  /** What is kept for the request is counted in it, and given back when that is answered. */
  hold(request: FastifyRequest, reply: FastifyReply): Reservation
}

/** Files as a user: their routes come once more under this. */
const IDENTITY = /^\/v1\/filesystem\/(\d{1,10})\/(\d{1,10})(?=\/(?:files|directories)\b)/

/**
 * Answers as OpenSandbox's execd does (commands, bash sessions, files, metrics), and as what guards the way out of its sandboxes, over
 * the guest link: nothing of it runs inside.
 * Nothing is kept here between calls: what it knows of commands and sessions is in the guest, so that ids hold over restarts of
 * the server, and over pauses.
 */
export function execdFacade(options: ExecdOptions): Facade {
  const places = new WeakMap<IncomingMessage, Place>()
  const users = new WeakMap<IncomingMessage, string>()
  const placeOf = ({ raw }: FastifyRequest): Place => {
    const place = places.get(raw)
    if (place === undefined) throw new IceboxError('Internal', 'a request came without its sandbox')
    return place
  }
  const streams = new Streams()
  const memory = options.memory ?? new RequestMemory('sandbox')
  const hold = (request: FastifyRequest, { raw }: FastifyReply) => memory.open(placeOf(request).sandbox, raw)
  options.closing.addEventListener('abort', () => streams.close(), { once: true })
  const reach = (request: FastifyRequest, signal: AbortSignal) =>
    reaching(options.reach(placeOf(request).sandbox, signal))
  const execd: Execd = {
    streams,
    hold,
    guest: async (request, signal) => (await reach(request, signal)).guest,
    async files(request, signal) {
      const { guest, sandbox } = await reach(request, signal)
      const user = users.get(request.raw) ?? (await options.user(sandbox, signal))
      return { guest, as: user === '' ? {} : { user } }
    },
  }

  const app = createApp({ logger: false, hold })
  app.register(async (scope: App) => {
    scope.setErrorHandler((thrown, request, reply) => {
      sendExecdFailure(thrown, request, reply)
      const { failure } = request
      if (failure?.code === 'Internal')
        options.log?.error({ sandbox: placeOf(request).sandbox, error: failure.message, stack: failure.stack }, 'execd')
    })
    scope.addHook('onRequest', async (request, reply) => {
      reply.header('x-request-id', request.id)
      const { sandbox, key } = placeOf(request)
      if (key) return
      const token = await reaching(within(DEADLINE.read, (signal) => options.token(sandbox, signal), reply))
      if (token !== undefined) requireToken(request.headers[EXECD_TOKEN_HEADER], token)
    })
    for (const routes of [
      commandRoutes,
      sessionRoutes,
      codeRoutes,
      fileRoutes,
      uploadRoutes,
      downloadRoutes,
      directoryRoutes,
      metricsRoutes,
      egressRoutes,
      unsupportedRoutes,
    ])
      await scope.register((inner: App) => routes(inner, execd))
  })

  const ready = app.ready()
  return async (request, response, place) => {
    await ready
    places.set(request, place)
    const [identity, uid, gid] = IDENTITY.exec(place.path) ?? []
    if (identity !== undefined) users.set(request, `${uid}:${gid}`)
    request.url = place.path.slice(identity?.length ?? 0)
    app.routing(request, response)
  }
}

function requireToken(given: string | string[] | undefined, token: string): void {
  if (typeof given !== 'string')
    throw new IceboxError('Unauthorized', `the request carries no ${EXECD_TOKEN_HEADER}, and the sandbox is secured`)
  if (!isSameSecret(given, token))
    throw new IceboxError('Unauthorized', `the ${EXECD_TOKEN_HEADER} is not the one of the sandbox`)
}
