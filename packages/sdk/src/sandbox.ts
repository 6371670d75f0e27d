import { randomUUID } from 'node:crypto'
import type { Duplex } from 'node:stream'
import type {
  CreateSandboxInput,
  ExecInfo,
  ExecInput,
  ForkResult,
  ForkSandbox,
  LogEntry,
  RenewSandbox,
  SandboxStats,
  WireSandbox,
  WireSnapshot,
} from '@icebox/model'
import { hasId, isArrayOf, isObject, isWireError } from './answers.ts'
import { Connection, NDJSON, route, UNTIL_SETTLED } from './connection.ts'
import type { CallOptions } from './deadline.ts'
import { deadlineExceeded, IceboxError, isIceboxError } from './error.ts'
import { Exec, type ExecOptions } from './exec.ts'
import { Files } from './files.ts'
import { type ConnectionOptions, connectionSettings } from './settings.ts'
import { bytes, objects } from './streams.ts'

/** Some children of a fork failed; `errors` are their errors, `sandboxes` the children that run. */
export class ForkError extends AggregateError {
  override readonly name = 'ForkError'
  readonly sandboxes: Sandbox[]

  constructor(errors: IceboxError[], sandboxes: Sandbox[]) {
    super(errors, `${errors.length} of ${errors.length + sandboxes.length} children failed: ${errors[0]?.message}`)
    this.sandboxes = sandboxes
  }
}

/** What a sandbox is made of: exactly one of template, snapshot and image. */
export interface CreateOptions extends CallOptions {
  template?: string | undefined
  /** Id or name. */
  snapshot?: string | undefined
  /** A reference, such as `docker.io/library/python:3.12` or `debian:bookworm+git`. */
  image?: string | undefined
  name?: string | undefined
  env?: Record<string, string> | undefined
  metadata?: Record<string, string> | undefined
  /** Seconds until its time is over; null or absent: never. They begin anew when it is resumed. */
  timeout?: number | null | undefined
  /** What happens then. Default: `kill`, which deletes it. */
  onTimeout?: 'kill' | 'pause' | undefined
  /** What the pause at the end of its time keeps. Default: `memory`. */
  pauseKind?: 'memory' | 'filesystem' | undefined
  /** Execs, file calls and connections to its ports resume it when it is paused. Default: false. */
  autoResume?: boolean | undefined
  /** The E2B and OpenSandbox services inside it ask for its access token. Default: true. */
  secure?: boolean | undefined
  /** Its ports answer without a token. Default: false. */
  publicTraffic?: boolean | undefined
  /** Kept and shown, not acted upon. */
  network?: Record<string, unknown> | undefined
  /** Started once it runs; its end does not end the sandbox. */
  entrypoint?: string[] | undefined
  /**
   * 1–255 printable ASCII characters that name this create: done again with the same key, also by another program or later, it gives the
   * same sandbox, as it is by then. Default: a new one, which only serves to send the request again when the connection broke.
   */
  idempotencyKey?: string | undefined
  /** Kubernetes quantities `cpu`, `memory` and `disk`; only with an image. */
  resourceLimits?: Record<string, string> | undefined
}

export type ForkOptions = Omit<Partial<ForkSandbox>, 'count'> & CallOptions
export interface PauseOptions extends CallOptions {
  /** `memory` (the default): with its processes. `filesystem`: only its files; it is then resumed by a boot. */
  kind?: 'memory' | 'filesystem' | undefined
}
export interface ConnectOptions extends CallOptions {
  /** Seconds that it is to live from now at least, null: for ever. Default: what it was given first, if it has to be resumed. */
  timeout?: number | null | undefined
}
export interface SnapshotOptions extends CallOptions {
  name?: string | undefined
  /** With a name: tell several of one name apart, as `name:tag`. Default: `default`. */
  tags?: string[] | undefined
  /** Once it is ready it takes name and tags from the snapshots that have them; one left without a tag is deleted. */
  replace?: boolean | undefined
  /** `memory` (the default): with its processes. `filesystem`: only its files; it restores by a boot. */
  kind?: 'memory' | 'filesystem' | undefined
  /** Delete the sandbox once the snapshot is durable. */
  stop?: boolean | undefined
  /** When it is deleted by itself, ISO 8601; absent: never. */
  expiresAt?: string | undefined
}

/** JavaScript would take a string for a list of its letters. */
function programOf(argv: readonly string[]): string[] {
  if (!Array.isArray(argv)) throw new TypeError("argv is a list, such as ['ls', '-l'] or ['sh', '-c', 'ls | wc -l']")
  return [...argv]
}

/** A running or paused computer. Got from `Sandbox.create`, `Sandbox.connect` or an `Icebox`. */
export class Sandbox implements AsyncDisposable {
  readonly id: string
  readonly files: Files
  readonly #connection: Connection
  #resource: WireSandbox

  /** Creates one on the server that the options or the environment name, and resolves when it runs. */
  static async create(options: CreateOptions & ConnectionOptions): Promise<Sandbox> {
    const { url, apiKey, dataDirectory, ...rest } = options
    return createSandbox(new Connection(connectionSettings({ url, apiKey, dataDirectory })), rest)
  }

  /** An existing one, by its id, name or a unique prefix of the id. */
  static async connect(ref: string, options: ConnectionOptions & CallOptions = {}): Promise<Sandbox> {
    const { url, apiKey, dataDirectory, ...call } = options
    return connectSandbox(new Connection(connectionSettings({ url, apiKey, dataDirectory })), ref, call)
  }

  /** @internal */
  constructor(connection: Connection, resource: WireSandbox) {
    this.id = resource.id
    this.#connection = connection
    this.#resource = resource
    this.files = new Files(connection, resource.id)
  }

  /** As the server last described it to this object. */
  get resource(): WireSandbox {
    return this.#resource
  }

  /** As it is now. */
  async info(call: CallOptions = {}): Promise<WireSandbox> {
    this.#resource = await this.#connection.json('GET', this.#route(), hasId<WireSandbox>, call)
    return this.#resource
  }

  /**
   * Runs a program, never through a shell: `['sh', '-c', text]` does that. A process that is listened to waits when it writes
   * more than is read; one that nobody listens to for long is better started by `spawn`.
   */
  exec(argv: readonly string[], options: ExecOptions = {}): Exec {
    const { stdin = false, signal, requestTimeoutMs, ...request } = options
    const input: ExecInput = { overflow: 'block', ...request, argv: programOf(argv), stdin: stdin !== false }
    const exec = new Exec(this.#connection, this.id, { request: input }, { signal, requestTimeoutMs })
    if (typeof stdin !== 'boolean') exec.feed(stdin, { signal })
    return exec
  }

  /** Starts a program and lets it be. Beyond `keepBytes` of output the oldest is dropped, unless `overflow` says otherwise. */
  async spawn(
    argv: readonly string[],
    options: Omit<ExecOptions, 'stdin'> & { stdin?: boolean } = {},
  ): Promise<ExecInfo> {
    const { signal, requestTimeoutMs, ...request } = options
    const json: ExecInput = { ...request, argv: programOf(argv) }
    const call = { signal, requestTimeoutMs, json, query: { detach: true } }
    return this.#connection.json('POST', this.#route('execs'), hasId<ExecInfo>, call)
  }

  /** The processes started by exec and spawn that the sandbox still knows, ended ones too. */
  async execs(call: CallOptions = {}): Promise<ExecInfo[]> {
    return this.#connection.json('GET', this.#route('execs'), isArrayOf(hasId<ExecInfo>), call)
  }

  /** Listens to a process again. Offsets in bytes since its start; default: the oldest that is kept. */
  attach(execId: string, options: CallOptions & { stdoutFrom?: number; stderrFrom?: number } = {}): Exec {
    const { stdoutFrom, stderrFrom, ...call } = options
    return new Exec(this.#connection, this.id, { id: execId, stdout: stdoutFrom, stderr: stderrFrom }, call)
  }

  /** Resolves when the snapshot is durable. The sandbox runs on, unless `stop`. */
  async snapshot(options: SnapshotOptions = {}): Promise<WireSnapshot> {
    const { signal, requestTimeoutMs, kind = 'memory', ...rest } = options
    const call = { signal, requestTimeoutMs, json: { ...rest, kind }, headers: UNTIL_SETTLED }
    const snapshot = await this.#connection.json('POST', this.#route('snapshots'), hasId<WireSnapshot>, call)
    if (snapshot.status.state !== 'Ready') throw unsettled(`snapshot ${snapshot.id}`, snapshot.status)
    return snapshot
  }

  /** `count` new sandboxes that go on from this one's present, 1–100. When some fail: `ForkError`, which has the others. */
  async fork(count = 1, options: ForkOptions = {}): Promise<Sandbox[]> {
    const results = await this.forkResults(count, options)
    const sandboxes = results.flatMap((result) =>
      'sandbox' in result ? [new Sandbox(this.#connection, result.sandbox)] : [],
    )
    const errors = results.flatMap((result) => ('error' in result ? [new IceboxError(undefined, result.error)] : []))
    if (errors.length > 0) throw new ForkError(errors, sandboxes)
    return sandboxes
  }

  /** The same, as the API answers: each child or its error, in order. */
  async forkResults(count = 1, options: ForkOptions = {}): Promise<ForkResult[]> {
    const { signal, requestTimeoutMs, ...rest } = options
    const call = { signal, requestTimeoutMs, json: { count, ...rest } }
    return this.#connection.json('POST', this.#route('fork'), isArrayOf(isForkResult), call)
  }

  /** Resolves when its state is durable. The machine is free a moment later. While it is paused its time stands still. */
  pause(options: PauseOptions = {}): Promise<WireSandbox> {
    const { kind, ...call } = options
    return this.#change('pause', { kind }, 'Paused', call)
  }

  /**
   * Resolves when it runs: waits while it is on its way, also into a pause, and resumes it when it is paused. Never brings its end
   * nearer. Gives whether it was paused.
   */
  async ensureRunning(options: ConnectOptions = {}): Promise<{ resumed: boolean }> {
    const { timeout, ...call } = options
    // Asked twice it does no more than once.
    const request = { ...call, json: { timeout }, idempotent: true }
    const { sandbox, resumed } = await this.#connection.json('POST', this.#route('connect'), isConnected, request)
    this.#resource = sandbox
    return { resumed }
  }

  /** Resolves when it runs again, under the same id. */
  resume(call: CallOptions = {}): Promise<WireSandbox> {
    return this.#change('resume', undefined, 'Running', call)
  }

  /** Back to a snapshot of its own line, by id or name; what came after is lost. */
  rollback(snapshot: string, call: CallOptions = {}): Promise<WireSandbox> {
    return this.#change('rollback', { snapshotId: snapshot }, 'Running', call)
  }

  /** `timeout`: seconds from now until its time is over, null: never. `expiresAt`: ISO 8601. `onlyExtend`: a later end stays. */
  async renew(until: RenewSandbox, call: CallOptions = {}): Promise<{ expiresAt?: string }> {
    const isExpiry = (answer: unknown): answer is { expiresAt?: string } => isObject(answer)
    return this.#connection.json('POST', this.#route('renew-expiration'), isExpiry, { ...call, json: until })
  }

  /** Sets keys; null removes one. */
  async setMetadata(patch: Record<string, string | null>, call: CallOptions = {}): Promise<WireSandbox> {
    const options = { ...call, json: patch, idempotent: true }
    this.#resource = await this.#connection.json('PATCH', this.#route('metadata'), hasId<WireSandbox>, options)
    return this.#resource
  }

  /** Resolves when nothing of it is left. */
  async delete(call: CallOptions = {}): Promise<void> {
    await this.#connection.delete(this.#route(), { ...call, headers: UNTIL_SETTLED })
  }

  /**
   * Where HTTP on a port of it is reached, and the headers that each request there needs: its traffic token, none when its ports are
   * public. By a name of its own where the server has a domain, unless `byPath`; else by a path of the server.
   */
  async portUrl(
    port: number,
    options: CallOptions & { byPath?: boolean | undefined } = {},
  ): Promise<{ url: string; headers: Record<string, string> }> {
    const { byPath, ...call } = options
    const path = this.#route('endpoints', String(port))
    const request = { ...call, query: { use_server_proxy: byPath } }
    const { endpoint, headers } = await this.#connection.json('GET', path, isEndpoint, request)
    return { url: `${new URL(this.#connection.url).protocol}//${endpoint}`, headers }
  }

  /** A connection to a TCP port inside, for what is no HTTP. `NotFound` when nothing listens there. */
  async port(port: number, call: CallOptions = {}): Promise<Duplex> {
    return this.#connection.upgrade(this.#route('ports', String(port)), 'tcp', call)
  }

  async stats(call: CallOptions = {}): Promise<SandboxStats> {
    return this.#connection.json('GET', this.#route('stats'), hasId<SandboxStats>, call)
  }

  /**
   * What became of it and what its start command and entrypoint wrote, with times, whatever its state; with `follow` on as long
   * as these run.
   */
  async *logEntries(options: CallOptions & { follow?: boolean } = {}): AsyncGenerator<LogEntry> {
    const { follow, ...call } = options
    const request = { ...call, query: { follow }, headers: { accept: NDJSON } }
    const response = await this.#connection.stream('GET', this.#route('logs'), request)
    for await (const entry of objects(this.#connection, response, call)) {
      if (isWireError(entry.error)) throw new IceboxError(undefined, entry.error)
      if (isLogEntry(entry)) yield entry
    }
  }

  /** Only what its start command and entrypoint wrote, whatever its state; with `follow` on as long as these run. */
  async logs(options: CallOptions & { follow?: boolean } = {}): Promise<AsyncIterable<Uint8Array>> {
    const { follow, ...call } = options
    const response = await this.#connection.stream('GET', this.#route('logs'), { ...call, query: { follow } })
    return bytes(this.#connection, response, call)
  }

  /** Deletes it; that it is gone already is well. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.delete().catch((thrown: unknown) => {
      if (!isIceboxError(thrown, 'NotFound')) throw thrown
    })
  }

  async #change(
    verb: string,
    json: unknown,
    wanted: WireSandbox['status']['state'],
    call: CallOptions,
  ): Promise<WireSandbox> {
    const options = { ...call, json, headers: UNTIL_SETTLED }
    this.#resource = await this.#connection.json('POST', this.#route(verb), hasId<WireSandbox>, options)
    if (this.#resource.status.state !== wanted) throw unsettled(`sandbox ${this.id}`, this.#resource.status)
    return this.#resource
  }

  #route(...rest: string[]): string {
    return route('sandboxes', this.id, ...rest)
  }
}

const isLogEntry = (entry: Record<string, unknown>): entry is Record<string, unknown> & LogEntry =>
  typeof entry.at === 'string' && typeof entry.source === 'string' && typeof entry.text === 'string'

export async function createSandbox(connection: Connection, options: CreateOptions): Promise<Sandbox> {
  const { signal, requestTimeoutMs, snapshot, image, idempotencyKey = randomUUID(), ...rest } = options
  const json: CreateSandboxInput = {
    ...rest,
    snapshotId: snapshot,
    image: image === undefined ? undefined : { uri: image },
  }
  const headers = { ...UNTIL_SETTLED, 'idempotency-key': idempotencyKey }
  const call = { signal, requestTimeoutMs, json, headers, idempotent: true }
  const resource = await connection.json('POST', route('sandboxes'), hasId<WireSandbox>, call)
  const { state } = resource.status
  // One that was made before with this key may be paused by now.
  if (state === 'Pending' || state === 'Failed') throw unsettled(`sandbox ${resource.id}`, resource.status)
  return new Sandbox(connection, resource)
}

export async function connectSandbox(connection: Connection, ref: string, call: CallOptions): Promise<Sandbox> {
  return new Sandbox(connection, await connection.json('GET', route('sandboxes', ref), hasId<WireSandbox>, call))
}

/** The longest wait is over and the resource is not where it should be. */
function unsettled(
  what: string,
  status: { state: string; reason?: string | undefined; message?: string | undefined },
): IceboxError {
  const why = status.message ?? status.reason
  return deadlineExceeded(`${what} is still ${status.state}${why === undefined ? '' : ` (${why})`}`)
}

const isConnected = (answer: unknown): answer is { sandbox: WireSandbox; resumed: boolean } =>
  isObject(answer) && hasId(answer.sandbox) && typeof answer.resumed === 'boolean'
const isEndpoint = (answer: unknown): answer is { endpoint: string; headers: Record<string, string> } =>
  isObject(answer) && typeof answer.endpoint === 'string' && isObject(answer.headers)
const isForkResult = (answer: unknown): answer is ForkResult =>
  isObject(answer) && (hasId(answer.sandbox) || isWireError(answer.error))
