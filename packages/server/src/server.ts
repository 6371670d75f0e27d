import { once } from 'node:events'
import { type IncomingMessage, ServerResponse } from 'node:http'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Control } from '@icebox/control'
import { IceboxError } from '@icebox/model'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { Access, keysOf } from './access.ts'
import { createApp } from './app.ts'
import { AttachedExecs } from './attached.ts'
import type { App, Context, ServerInfo, ShutdownMode } from './context.ts'
import { Streams } from './stream.ts'
import { routes } from './v1/routes.ts'

export interface ServerOptions {
  control: Control
  /** Port 0: the system picks one. */
  listen: { host: string; port: number }
  info: ServerInfo
  /** Where uploads and exports are put while they are under way: on a disk with room for snapshots. */
  temporaryDirectory: string
  /** Throws `NoSpace` unless so many bytes fit there: what is too long is refused before it is read. */
  requireSpace: (bytes: number, what: string) => Promise<void>
  /**
   * Names under which the server is reached besides loopback and the address it listens on; web pages of these hosts may
   * call it.
   */
  allowedHosts?: readonly string[]
  /** Gets one line of JSON per request that changes something or fails. */
  log: { write(line: string): void }
  /** Called once the request to shut down has been answered. */
  onShutdown: (mode: ShutdownMode) => void
}

export interface Server {
  /** Address to call it by. */
  readonly url: string
  /**
   * Refuses new requests, ends streams, lets the rest finish until the signal aborts, then cuts them. Operations that were
   * accepted go on: they are the control plane's.
   */
  close(signal: AbortSignal): Promise<void>
}

/** Words and times in log lines as people read them. */
const LINE = {
  formatters: { level: (level: string) => ({ level }) },
  timestamp: () => `,"time":"${new Date().toISOString()}"`,
}

/** Serves the API. Throws `Conflict` when the port is taken, `InvalidArgument` when the address cannot be listened on. */
export async function openServer(options: ServerOptions): Promise<Server> {
  const { host, port } = options.listen
  const address = host === 'localhost' ? '127.0.0.1' : host
  const access = new Access({ listen: address, allowedHosts: options.allowedHosts ?? [] })
  const closing = new AbortController()
  const streams = new Streams()
  const context: Context = {
    control: options.control,
    info: options.info,
    temporaryDirectory: options.temporaryDirectory,
    requireSpace: options.requireSpace,
    streams,
    execs: new AttachedExecs(),
    closing: closing.signal,
    upgrades: new WeakMap(),
    onShutdown: options.onShutdown,
  }
  const app = createApp({ logger: { level: 'info', base: null, messageKey: 'event', stream: options.log, ...LINE } })

  app.addHook('onRequest', async (request, reply) => {
    reply.header('x-request-id', request.id)
    const startedAt = performance.now()
    reply.raw.once('close', () => logRequest(request, reply, performance.now() - startedAt))
    access.checkOrigin(request.raw)
    if (request.routeOptions.config.public !== true) await authenticate(request, options.control)
    if (request.routeOptions.config.installation === true && !request.installation)
      throw new IceboxError('Forbidden', 'the key of a project does not open this', {
        remedy: 'Use the key of the installation: the file `key` in its data directory.',
      })
    if (closing.signal.aborted) {
      reply.header('connection', 'close')
      throw new IceboxError('Unavailable', 'the server is shutting down', { remedy: 'Start it again.' })
    }
  })
  await routes(app, context)
  app.server.on('upgrade', (request, socket, head) => serveUpgrade(app, context, request, socket, head))

  await app.listen({ host: address, port }).catch((thrown: unknown) => {
    throw listenError(thrown, host, port)
  })
  return {
    url: urlOf(app.server.address(), address, port),
    close: async (signal) => {
      closing.abort()
      streams.close()
      const cut = () => app.server.closeAllConnections()
      if (signal.aborted) cut()
      else signal.addEventListener('abort', cut, { once: true })
      await app.close()
      signal.removeEventListener('abort', cut)
    },
  }
}

/** Finds out whose request it is. Throws `Unauthorized`. */
async function authenticate(request: FastifyRequest, control: Control): Promise<void> {
  const keys = keysOf(request.raw)
  if (keys.length === 0) throw new IceboxError('Unauthorized', 'the request carries no API key')
  for (const key of keys) {
    const owner = await control.keys.authenticate(key)
    if (owner === undefined) continue
    request.project = control.project(owner.project)
    request.installation = owner.installation
    return
  }
  throw new IceboxError('Unauthorized', 'the API key is not one of this server')
}

/**
 * Throws what `openServer` would throw for this address, before anything else is begun. Another program may still take it in
 * between.
 */
export async function checkAddress({ host, port }: ServerOptions['listen']): Promise<void> {
  const probe = createServer()
  const bound = once(probe, 'listening')
  probe.listen({ host: host === 'localhost' ? '127.0.0.1' : host, port })
  try {
    await bound
  } catch (thrown) {
    throw listenError(thrown, host, port)
  }
  probe.close()
  await once(probe, 'close')
}

/** Takes a request that came with `Upgrade: tcp` through the same hooks and routes as any other. */
function serveUpgrade(app: App, context: Context, request: IncomingMessage, socket: Duplex, head: Buffer): void {
  // A client that vanishes is seen by whoever reads or writes.
  socket.on('error', () => socket.destroy())
  context.upgrades.set(request, { socket, head })
  const response = new ServerResponse(request)
  // Answered as a plain request, refusals included, the connection has served its purpose.
  response.shouldKeepAlive = false
  response.assignSocket(socket as Socket)
  response.on('finish', () => socket.end(() => socket.destroy()))
  app.routing(request, response)
}

function logRequest(request: FastifyRequest, reply: FastifyReply, milliseconds: number): void {
  const { failure, method } = request
  const { config, schema } = request.routeOptions
  const changes = method !== 'GET' && config.frequent !== true
  if (!changes && failure === undefined) return
  const line = {
    requestId: request.id,
    operation: schema?.operationId ?? `${method} unknown`,
    resource: request.resource ?? namedBy(request.params),
    status: reply.raw.statusCode,
    ms: Math.round(milliseconds * 10) / 10,
    ...(reply.raw.writableFinished ? {} : { clientGone: true }),
    ...(failure === undefined ? {} : { code: failure.code, error: failure.message }),
  }
  if (failure?.code === 'Internal') request.log.error({ ...line, stack: stackOf(failure) }, 'request')
  else request.log.info(line, 'request')
}

function namedBy(params: unknown): string | undefined {
  if (typeof params !== 'object' || params === null) return undefined
  const [first] = Object.values(params)
  return typeof first === 'string' ? first : undefined
}

const stackOf = ({ cause, stack }: IceboxError): string | undefined => (cause instanceof Error ? cause.stack : stack)

function listenError(thrown: unknown, host: string, port: number): unknown {
  const errno = thrown instanceof Error && 'code' in thrown ? thrown.code : undefined
  const remedy = 'Give another address with --listen HOST:PORT.'
  switch (errno) {
    case 'EADDRINUSE':
      return new IceboxError('Conflict', `port ${port} of ${host} is in use by another program`, {
        remedy: `Stop that program (\`ss -ltnp 'sport = :${port}'\` names it), or give another port with --listen HOST:PORT.`,
        details: { port },
        cause: thrown,
      })
    case 'EACCES':
    case 'EADDRNOTAVAIL':
    case 'EAFNOSUPPORT':
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
    case 'ERR_SOCKET_BAD_PORT':
      return new IceboxError('InvalidArgument', `cannot listen on ${host} port ${port}: ${errno}`, {
        remedy,
        cause: thrown,
      })
    default:
      return thrown
  }
}

function urlOf(bound: AddressInfo | string | null, host: string, port: number): string {
  const name = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host
  const number = typeof bound === 'object' && bound !== null ? bound.port : port
  return `http://${name.includes(':') ? `[${name}]` : name}:${number}`
}
