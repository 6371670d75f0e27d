import type { Control } from '@icebox/control'
import { IceboxError, type Sandbox } from '@icebox/model'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { Access, keysOf } from './access.ts'
import { createApp } from './app.ts'
import { AttachedExecs } from './attached.ts'
import type { CertificateFiles } from './certificate.ts'
import { onceAborted } from './client.ts'
import type { Context, ServerInfo, ShutdownMode, WithinSpace } from './context.ts'
import { e2bRoutes } from './e2b/routes.ts'
import { guestServices } from './facades.ts'
import { front } from './front.ts'
import { Gateway, type GatewayOptions } from './gateway/gateway.ts'
import { openListener } from './listener.ts'
import { RequestMemory } from './memory.ts'
import { type Rate, Strangers } from './strangers.ts'
import { Streams } from './stream.ts'
import { type Limits, Turnstile } from './turnstile.ts'
import { routes } from './v1/routes.ts'

export interface ServerOptions {
  control: Control
  /** Port 0: the system picks one. */
  listen: { host: string; port: number }
  info: ServerInfo
  /** Where uploads and exports are put while they are under way: on a disk with room for snapshots. */
  temporaryDirectory: string
  /** Claims room there for what is uploaded: what is announced and too long ends with `NoSpace` before it is read. */
  withinSpace: WithinSpace
  /**
   * Names under which the server is reached besides loopback and the address it listens on; web pages of these hosts may
   * call it.
   */
  allowedHosts?: readonly string[]
  /** Domains all of whose names lead here; `<port>-<id>.<domain>` is a port of a sandbox. */
  domains?: readonly string[]
  /** Origins, such as `https://app.example`, whose web pages may call the API and read its answers; `*`: all. */
  corsOrigins?: readonly string[]
  /** Whether every sandbox wants its access token, also those that were created with `secure: false`. */
  requireTokens?: boolean
  /** Serve HTTPS with this certificate. It is read again when the files change. */
  tls?: CertificateFiles
  /** Of the way to the ports of sandboxes. */
  gateway?: Pick<GatewayOptions, 'facades' | 'limits' | 'headDeadline'>
  /** Answers of the API that are streamed, open at once: of each project and in all. */
  streams?: Limits
  /** How often callers without a valid key are refused before they have to wait: each address, and all. */
  strangers?: { each: Rate; inAll: Rate }
  /** Gets one line of JSON per request that changes something or fails. */
  log: { write(line: string): void }
  /** Called once the request to shut down has been answered. */
  onShutdown: (mode: ShutdownMode) => void
}

export interface Server {
  /** Address to call it by. */
  readonly url: string
  /** Address to call it by from this machine, without TLS. */
  readonly localUrl: string
  /**
   * Refuses new requests, ends streams, lets the rest finish until the signal aborts, then cuts them. Operations that were
   * accepted go on: they are the control plane's.
   */
  close(signal: AbortSignal): Promise<void>
}

/** Two for each sandbox that a project may have running, and for two such projects. */
const STREAMS: Limits = { each: 2048, inAll: 4096 }

/** Words and times in log lines as people read them. */
const LINE = {
  formatters: { level: (level: string) => ({ level }) },
  timestamp: () => `,"time":"${new Date().toISOString()}"`,
}

/** Serves the API. Throws `Conflict` when the port is taken, `InvalidArgument` when the address cannot be listened on. */
export async function openServer(options: ServerOptions): Promise<Server> {
  const { allowedHosts = [], domains = [], corsOrigins = [] } = options
  const access = new Access({ listen: options.listen.host, allowedHosts, domains, corsOrigins })
  const closing = new AbortController()
  const turnstile = new Turnstile(options.streams ?? STREAMS, {
    each: 'streams of this project',
    inAll: 'streams',
  })
  const streams = new Streams(({ request }) => turnstile.enter(request.project.name, request.project.name))
  const isSecure = ({ spec }: Sandbox) => spec.secure || options.requireTokens === true
  const context: Context = {
    control: options.control,
    info: options.info,
    temporaryDirectory: options.temporaryDirectory,
    withinSpace: options.withinSpace,
    domains,
    isSecure,
    streams,
    execs: new AttachedExecs(),
    closing: closing.signal,
    upgrades: new WeakMap(),
    onShutdown: options.onShutdown,
  }
  const strangers = new Strangers(options.strangers?.each, options.strangers?.inAll)
  const memory = new RequestMemory('project')
  const app = createApp({
    hold: ({ project }, { raw }) => memory.open(project?.name ?? '', raw),
    logger: { level: 'info', base: null, messageKey: 'event', stream: options.log, ...LINE },
  })

  app.addHook('onRequest', async (request, reply) => {
    reply.header('x-request-id', request.id)
    const startedAt = performance.now()
    reply.raw.once('close', () => logRequest(request, reply, performance.now() - startedAt))
    access.checkHost(request.raw)
    access.checkOrigin(request.raw)
    if (request.routeOptions.config.public !== true) await authenticate(request, options.control, strangers)
    endWhenRevoked(request, reply)
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
  await e2bRoutes(app, context)
  await app.ready()
  const gateway = new Gateway({
    ...options.gateway,
    facades: new Map([
      ...guestServices(options.control, isSecure, closing.signal, app.log),
      ...(options.gateway?.facades ?? []),
    ]),
    control: options.control,
    domains,
    strangers,
    onFault: ({ message, stack }) => app.log.error({ error: message, stack }, 'gateway.fault'),
  })
  const listener = await openListener({
    listen: options.listen,
    ...(options.tls === undefined ? {} : { tls: options.tls }),
    ...front({ app, access, gateway, upgrades: context.upgrades, traffic: options.control.traffic, strangers }),
    onCertificate: (error) => {
      if (error === undefined) app.log.info('certificate.read')
      else app.log.error({ error: error.message }, 'certificate.unusable')
    },
  })
  return {
    url: listener.url,
    localUrl: listener.localUrl,
    close: async (signal) => {
      closing.abort()
      streams.close()
      gateway.close()
      const cut = () => listener.cut()
      if (signal.aborted) cut()
      else signal.addEventListener('abort', cut, { once: true })
      await Promise.all([app.close(), listener.close()])
      signal.removeEventListener('abort', cut)
    },
  }
}

/** Finds out whose request it is. Throws `Unauthorized`, `TooManyRequests` to who was told so too often. */
async function authenticate(request: FastifyRequest, control: Control, strangers: Strangers): Promise<void> {
  const keys = keysOf(request.raw)
  for (const { key } of keys) {
    const owner = await control.keys.authenticate(key)
    if (owner === undefined) continue
    request.project = owner.installation ? control.installation : control.project(owner.project)
    request.installation = owner.installation
    request.revoked = owner.revoked
    return
  }
  strangers.check(request.raw)
  strangers.refused(request.raw)
  throw new IceboxError(
    'Unauthorized',
    keys.length === 0 ? 'the request carries no API key' : 'the API key is not one of this server',
  )
}

/** Milliseconds in which streams tell their clients why they end. */
const WORDS = 200

/** What a key has begun ends with it: streams say so, anything else that is under way is cut. What was accepted goes on. */
function endWhenRevoked({ revoked }: FastifyRequest, reply: FastifyReply): void {
  if (revoked === undefined) return
  const end = () => {
    setTimeout(() => reply.raw.destroy(), WORDS).unref()
  }
  reply.raw.once('close', onceAborted(revoked, end))
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
