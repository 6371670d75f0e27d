import { randomUUID } from 'node:crypto'
import type { EventEmitter } from 'node:events'
import { unwatchFile, watchFile } from 'node:fs'
import {
  createServer as createHttpServer,
  type Server as HttpServer,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http'
import { createSecureServer, type Http2SecureServer, type ServerHttp2Session } from 'node:http2'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { wireError } from '@icebox/control'
import { IceboxError } from '@icebox/model'
import { addressOf, bind, closed, urlOf } from './bind.ts'
import { type CertificateFiles, readCertificate } from './certificate.ts'
import { Connections } from './connections.ts'

export interface ListenerOptions {
  /** Port 0: the system picks one. */
  listen: { host: string; port: number }
  /** With it: HTTPS with HTTP/2 and HTTP/1.1 there, and HTTP on a port of loopback that the system picks, for programs on this machine. */
  tls?: CertificateFiles
  /** At once. Default: 16 384. */
  connections?: number
  /** HTTP/2 requests come in Node's compatibility classes, which have what is used of these. */
  onRequest(request: IncomingMessage, response: ServerResponse): void
  /** Whether the offer is one to take; else the request is answered as if there were none. */
  wantsUpgrade(request: IncomingMessage): boolean
  onUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void
  /** A certificate was read again, or could not be. */
  onCertificate(error: IceboxError | undefined): void
}

export interface Listener {
  /** Address to call it by from this machine, without TLS. */
  readonly localUrl: string
  readonly url: string
  /** Takes no more connections, and resolves when those there are have ended. */
  close(): Promise<void>
  /** Ends all connections. */
  cut(): void
}

/** Milliseconds in which the head of a request must have arrived. */
const HEAD_ARRIVAL = 30_000
/** Milliseconds in which a request must have arrived whole: uploads may take long. */
const ARRIVAL = 3_600_000
/** Milliseconds between looks at which requests are late. */
const CHECK = 5_000
/** Milliseconds a connection is kept for the next request. */
const KEEP = 72_000
/** Bytes of the head of a request. */
const HEAD_SIZE = 32_768
/** Connections at once. */
const CONNECTIONS = 16_384
/** Those beyond that are taken when one that waits for a request makes room. */
const NEWCOMERS = 64
/** Requests at once on one connection of HTTP/2. */
const STREAMS = 256
/** Milliseconds between looks at the files of the certificate. */
const LOOK = 5_000

const HTTP1 = {
  // Dead clients of long streams are noticed by the kernel.
  keepAlive: true,
  keepAliveInitialDelay: 60_000,
  headersTimeout: HEAD_ARRIVAL,
  requestTimeout: ARRIVAL,
  connectionsCheckingInterval: CHECK,
  keepAliveTimeout: KEEP,
  maxHeaderSize: HEAD_SIZE,
}

/** Listens. Throws `Conflict` when the port is taken, `InvalidArgument` when the address or the certificate cannot be used. */
export async function openListener(options: ListenerOptions): Promise<Listener> {
  const { host, port } = options.listen
  const address = addressOf(host)
  if (options.tls === undefined) {
    const plain = await openPlain(options, address, port)
    return { ...plain, localUrl: plain.url }
  }
  const secure = await openSecure(options, options.tls, address, port)
  try {
    const local = await openPlain(options, '127.0.0.1', 0)
    return {
      url: secure.url,
      localUrl: local.url,
      close: async () => {
        await Promise.all([secure.close(), local.close()])
      },
      cut: () => {
        secure.cut()
        local.cut()
      },
    }
  } catch (thrown) {
    secure.cut()
    await secure.close()
    throw thrown
  }
}

type Bound = Pick<Listener, 'url' | 'close' | 'cut'>

async function openPlain(options: ListenerOptions, host: string, port: number): Promise<Bound> {
  const server = createHttpServer(HTTP1)
  attach(server, options)
  await bind(server, host, port)
  return {
    url: urlOf('http', server.address(), host, port),
    close: () => {
      keepNoMore(server)
      return closed(server)
    },
    cut: () => server.closeAllConnections(),
  }
}

async function openSecure(
  options: ListenerOptions,
  files: CertificateFiles,
  host: string,
  port: number,
): Promise<Bound> {
  const server = createSecureServer({
    ...(await readCertificate(files)),
    allowHTTP1: true,
    minVersion: 'TLSv1.2',
    handshakeTimeout: HEAD_ARRIVAL,
    settings: { maxConcurrentStreams: STREAMS, maxHeaderListSize: HEAD_SIZE },
    ...HTTP1,
  })
  attach(server, options)
  const sessions = new Set<ServerHttp2Session>()
  server.on('session', (session) => {
    sessions.add(session)
    session.once('close', () => sessions.delete(session))
    let streams = 0
    session.on('stream', (stream) => {
      streams++
      stream.once('close', () => streams--)
    })
    // As a connection of HTTP/1.1 between two requests.
    session.setTimeout(KEEP, () => {
      if (streams === 0) session.close()
    })
  })
  // Also those that have not yet said which HTTP they speak.
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  await bind(server, host, port)
  const reload = async () => {
    // The present one stays when that fails, such as while only one of the files has been replaced.
    try {
      server.setSecureContext(await readCertificate(files))
      options.onCertificate(undefined)
    } catch (thrown) {
      options.onCertificate(IceboxError.from(thrown))
    }
  }
  const changed = () => void reload()
  const watched = [files.cert, files.key]
  for (const file of watched) watchFile(file, { interval: LOOK, persistent: false }, changed)
  return {
    url: urlOf('https', server.address(), host, port),
    close: async () => {
      for (const file of watched) unwatchFile(file, changed)
      for (const session of sessions) session.close()
      keepNoMore(server)
      await closed(server)
    },
    cut: () => {
      for (const session of sessions) session.destroy()
      for (const socket of sockets) socket.destroy()
    },
  }
}

/** Connections whose request ends from here on are not kept for a next one, which a server that closes would wait for. */
function keepNoMore(server: HttpServer | Http2SecureServer): void {
  // The class for TLS does not declare it. 0 would mean for ever.
  Object.assign(server, { keepAliveTimeout: 1 })
}

function attach(server: HttpServer | Http2SecureServer, options: ListenerOptions): void {
  const most = options.connections ?? CONNECTIONS
  server.maxConnections = most + NEWCOMERS
  const connections = new Connections(most)
  // The class for TLS takes it only as a property.
  Object.assign(server, { shouldUpgradeCallback: options.wantsUpgrade })
  // What these two events bring is typed by the base class, which both kinds of server share.
  const events: EventEmitter = server
  events.on('connection', (socket: Socket) => connections.admit(socket))
  const onRequest: ListenerOptions['onRequest'] = (request, response) => {
    connections.ask(request.socket, response)
    options.onRequest(request, response)
  }
  events.on('request', onRequest)
  // Who forwards the request forwards the expectation; the rest is told to go on by whoever reads the body.
  events.on('checkContinue', onRequest)
  events.on('upgrade', (request: IncomingMessage, socket: Socket, head: Buffer) => {
    connections.ask(socket, socket)
    options.onUpgrade(request, socket, head)
  })
  events.on('clientError', refuseUnreadable)
}

/** Answers what is no HTTP. */
function refuseUnreadable(thrown: Error & { code?: string }, socket: Socket): void {
  if (!socket.writable) {
    socket.destroy()
    return
  }
  const tooLong = thrown.code === 'HPE_HEADER_OVERFLOW'
  const late = thrown.code === 'ERR_HTTP_REQUEST_TIMEOUT'
  const status = tooLong ? '431 Request Header Fields Too Large' : late ? '408 Request Timeout' : '400 Bad Request'
  const error = new IceboxError('InvalidArgument', `not an HTTP request: ${thrown.message}`)
  const body = JSON.stringify(wireError(error))
  socket.end(
    `HTTP/1.1 ${status}\r\nX-Request-ID: ${randomUUID()}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  )
}
