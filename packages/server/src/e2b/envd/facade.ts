import { IncomingMessage } from 'node:http'
import { createConnectRouter, createContextValues } from '@connectrpc/connect'
import type { UniversalHandler } from '@connectrpc/connect/protocol'
import { compressionGzip } from '@connectrpc/connect-node'
import { type Guest, isError } from '@icebox/model'
import { ClientGone } from '../../client.ts'
import { linger } from '../../linger.ts'
import { RequestMemory } from '../../memory.ts'
import { samples, usedPercent } from '../../processor.ts'
import { basicUser, checkAccess } from './access.ts'
import { sendError, sendJson, sendMethodNotAllowed, sendUnreachable, writeAll } from './answer.ts'
import { bounded, CALL, type Call, type EnvdSandbox, type Request, type Response } from './call.ts'
import { composeFiles } from './compose-files.ts'
import { counted } from './counted.ts'
import { download } from './download.ts'
import { RestError } from './errors.ts'
import { filesystemService } from './filesystem.ts'
import { Filesystem } from './generated/filesystem_pb.js'
import { Process } from './generated/process_pb.js'
import { processService } from './process.ts'
import { upload } from './upload.ts'
import { variablesOf } from './variables.ts'

export interface EnvdOptions {
  /** Throws `NotFound`. Changes nothing: a paused sandbox stays paused. */
  find(sandbox: string, signal: AbortSignal): Promise<EnvdSandbox>
  /** The guest to ask; resumes the sandbox where that is allowed. */
  reach(sandbox: string, signal: AbortSignal): Promise<{ execution: string; guest: Guest }>
  /** What requests hold. Default: one of the façade's own. */
  memory?: RequestMemory
  /** Ends streams: the server is shutting down. */
  closing?: AbortSignal
}

/** Answers a request that came for the guest service of a sandbox. `path`: with its query, as that service would see it. */
export type EnvdFacade = (request: Request, response: Response, at: { sandbox: string; path: string }) => Promise<void>

/** Clients tell a sandbox that has ended or is paused from one that has trouble by these words, as E2B's proxy knows no other. */
const NOT_FOUND = 'The sandbox was not found'
const NOT_RUNNING = `${NOT_FOUND} running`
/** Bytes of one message of an RPC. */
const MESSAGE_LIMIT = 16 * 1024 * 1024
/** Milliseconds that a timer takes. */
const LONGEST_TIMER = 2 ** 31 - 1
/** Milliseconds over which the use of the CPU is measured. */
const METRICS_SPAN = 100
/** Milliseconds in which a sandbox must have resumed. */
const REACH_LIMIT = 660_000

type Handler = (
  request: Request,
  response: Response,
  query: URLSearchParams,
  call: Call,
  signal: AbortSignal,
) => unknown

const REST: Readonly<Record<string, Readonly<Record<string, Handler>>>> = {
  '/files': { GET: download, POST: upload },
  '/files/compose': {
    POST: (request, response, _query, call, signal) => composeFiles(request, response, call, signal),
  },
  '/envs': {
    GET: (_request, response, _query, { sandbox }) =>
      sendJson(response, 200, { ...variablesOf(sandbox), ...sandbox.env }),
  },
  '/metrics': { GET: (_request, response, _query, call, signal) => metrics(response, call, signal) },
}

/** E2B's guest service, envd, spoken over the guest link: nothing of it runs in the sandbox. Keeps what its clients' streams need. */
export function envdFacade(options: EnvdOptions): EnvdFacade {
  const memory = options.memory ?? new RequestMemory('sandbox')
  const router = createConnectRouter({
    acceptCompression: [compressionGzip],
    // Asking costs more than it saves, above all on output that is sent as it comes.
    compressMinBytes: MESSAGE_LIMIT,
    readMaxBytes: MESSAGE_LIMIT,
    ...(options.closing && { shutdownSignal: options.closing }),
  })
  router.service(Process, processService()).service(Filesystem, filesystemService())
  const methods = new Map(router.handlers.map((handler) => [handler.requestPath, handler]))

  async function serve(
    request: Request,
    response: Response,
    at: { sandbox: string; path: string },
    signal: AbortSignal,
  ) {
    const [pathname = '', search = ''] = at.path.split(/\?(.*)/s)
    const query = new URLSearchParams(search)
    const sandbox = await options.find(at.sandbox, signal).catch((thrown: unknown) => {
      if (!isError(thrown, 'NotFound')) throw thrown
      return undefined
    })
    if (sandbox === undefined) return sendUnreachable(response, at.sandbox, NOT_FOUND)
    if (pathname === '/health') {
      if (request.method !== 'GET') return sendMethodNotAllowed(response, 'GET')
      if (!sandbox.running) return sendUnreachable(response, at.sandbox, NOT_RUNNING)
      response.writeHead(204, { 'cache-control': 'no-store' })
      response.end()
      return
    }
    checkAccess(request, pathname, query, sandbox)
    const method = methods.get(pathname)
    const rest = REST[pathname]
    if (method === undefined && rest === undefined) throw new RestError(404, '404 page not found')
    const asked = request.method ?? ''
    const handle = rest !== undefined && Object.hasOwn(rest, asked) ? rest[asked] : undefined
    if (rest !== undefined && handle === undefined) return sendMethodNotAllowed(response, Object.keys(rest).join(', '))

    const reached = await options
      .reach(at.sandbox, AbortSignal.any([signal, AbortSignal.timeout(REACH_LIMIT)]))
      .catch((thrown: unknown) => {
        if (!isError(thrown, 'NotFound', 'InvalidState')) throw thrown
        sendUnreachable(response, at.sandbox, thrown.code === 'NotFound' ? NOT_FOUND : NOT_RUNNING)
      })
    if (reached === undefined) return
    const user = method === undefined ? query.get('username') : basicUser(request.headers.authorization)
    const { execution, guest } = reached
    const hold = () => memory.open(at.sandbox, response)
    const call = { sandbox, execution, guest, user: user || undefined, hold }
    if (method !== undefined) await serveMethod(method, request, response, call, signal)
    else await handle?.(request, response, query, call, signal)
  }

  return async (request, response, at) => {
    const client = new AbortController()
    response.once('close', () => client.abort(new ClientGone()))
    // Its failures are those of the reads and writes that they interrupt.
    request.on('error', () => undefined)
    response.on('error', () => undefined)
    try {
      await serve(request, response, at, client.signal)
    } catch (thrown) {
      sendError(response, thrown)
    }
    if (request instanceof IncomingMessage) linger(request)
  }
}

/** Hands the request to the RPC library, which knows the three protocols, and its answer to the client. */
async function serveMethod(
  method: UniversalHandler,
  request: Request,
  response: Response,
  call: Call,
  signal: AbortSignal,
): Promise<void> {
  const header = new Headers()
  for (const [name, value] of Object.entries(request.headers))
    if (!name.startsWith(':') && value !== undefined)
      for (const each of Array.isArray(value) ? value : [value]) header.append(name, each)
  // None, and longer than a timer takes, are no deadline.
  const timeout = Number(header.get('connect-timeout-ms') ?? 0)
  if (timeout === 0 || timeout > LONGEST_TIMER) header.delete('connect-timeout-ms')
  const answer = await method({
    httpVersion: request.httpVersion,
    method: request.method ?? '',
    url: `http://envd${method.requestPath}`,
    header,
    body: counted(request.iterator({ destroyOnReturn: false }), request.headers['content-type'], call.hold()),
    signal,
    contextValues: createContextValues().set(CALL, call),
  })
  const head = () => response.writeHead(answer.status, Object.fromEntries(answer.header ?? []))
  if (answer.body === undefined) head()
  else await writeAll(response, afterFirst(answer.body, head), signal)
  if (!response.headersSent) head()
  if (answer.trailer) response.addTrailers(Object.fromEntries(answer.trailer))
  response.end()
}

/** Calls `begun` once the first chunk is there: until then the answer's head may change. */
async function* afterFirst(
  chunks: AsyncIterable<Uint8Array>,
  begun: () => void,
): AsyncGenerator<Uint8Array, void, void> {
  let hasBegun = false
  for await (const chunk of chunks) {
    if (!hasBegun) begun()
    hasBegun = true
    yield chunk
  }
}

async function metrics(response: Response, { guest }: Call, client: AbortSignal): Promise<void> {
  const signal = bounded(client, 'short')
  const [before, after] = await samples(guest, METRICS_SPAN, signal)
  const { metrics: now } = after
  const mebibytes = (bytes: number) => Math.floor(bytes / 1024 / 1024)
  sendJson(response, 200, {
    ts: Math.floor(Date.now() / 1000),
    cpu_count: now.cpuCount,
    cpu_used_pct: usedPercent(before, after),
    mem_total: now.memoryTotalBytes,
    mem_used: now.memoryUsedBytes,
    mem_cache: now.memoryCacheBytes ?? 0,
    mem_total_mib: mebibytes(now.memoryTotalBytes),
    mem_used_mib: mebibytes(now.memoryUsedBytes),
    disk_used: now.diskUsedBytes,
    disk_total: now.diskTotalBytes,
  })
}
