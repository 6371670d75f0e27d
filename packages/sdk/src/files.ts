import { Readable } from 'node:stream'
import type { FileEvent, FileInfo } from '@icebox/model'
import { hasPath, isArrayOf, isObject, isWireError } from './answers.ts'
import { type Connection, NDJSON, route } from './connection.ts'
import type { CallOptions } from './deadline.ts'
import { IceboxError, notUnderstood } from './error.ts'
import { bytes, objects } from './streams.ts'

export interface FileOptions extends CallOptions {
  /** With whose rights: a name or uid in the sandbox. Default: root. */
  user?: string | undefined
}

export type FileContent = string | Uint8Array | Readable | AsyncIterable<Uint8Array> | ReadableStream<Uint8Array>

/** The files of a running sandbox. Paths that are not absolute start at the user's home. */
export class Files {
  readonly #connection: Connection
  readonly #sandbox: string

  /** @internal */
  constructor(connection: Connection, sandbox: string) {
    this.#connection = connection
    this.#sandbox = sandbox
  }

  /** The whole file: bytes, or with an encoding text. */
  read(path: string, options?: FileOptions & { encoding?: undefined }): Promise<Buffer>
  read(path: string, options: FileOptions & { encoding: BufferEncoding }): Promise<string>
  async read(
    path: string,
    options: FileOptions & { encoding?: BufferEncoding | undefined } = {},
  ): Promise<Buffer | string> {
    const { data } = await this.readStream(path, options)
    const content = Buffer.concat(await Array.fromAsync(data))
    return options.encoding === undefined ? content : content.toString(options.encoding)
  }

  /** The file piece by piece; a connection that breaks in the middle throws. `offset` and `length` in bytes. */
  async readStream(
    path: string,
    options: FileOptions & { offset?: number; length?: number } = {},
  ): Promise<{ info: FileInfo; data: AsyncIterable<Uint8Array> }> {
    const { user, offset, length, ...call } = options
    const query = { path, user, offset, length }
    const response = await this.#connection.stream('GET', this.#route('content'), { ...call, query })
    const info = fileInfo(response.headers['x-file-info'])
    return { info, data: bytes(this.#connection, response, call) }
  }

  /** Creates missing directories; a reader sees the old or the new content, never a part. `mode`: permission bits. */
  async write(path: string, content: FileContent, options: FileOptions & { mode?: number } = {}): Promise<FileInfo> {
    const { user, mode, ...call } = options
    const body = typeof content === 'string' ? Buffer.from(content) : content
    return this.#connection.json('PUT', this.#route('content'), hasPath<FileInfo>, {
      ...call,
      query: { path, user, mode },
      body: body instanceof Uint8Array || body instanceof Readable ? body : Readable.from(body, { objectMode: false }),
      idempotent: body instanceof Uint8Array,
    })
  }

  /** Sorted by path. `depth` 1 (the default): the directory's own entries. */
  async list(path: string, options: FileOptions & { depth?: number } = {}): Promise<FileInfo[]> {
    const { user, depth, ...call } = options
    const query = { path, user, depth }
    return this.#connection.json('GET', this.#route('list'), isArrayOf(hasPath<FileInfo>), { ...call, query })
  }

  /** Of a symlink: of itself. */
  async stat(path: string, options: FileOptions = {}): Promise<FileInfo> {
    const { user, ...call } = options
    return this.#connection.json('GET', this.#route('info'), hasPath<FileInfo>, { ...call, query: { path, user } })
  }

  /** With its parents. False when it was there already. */
  async makeDirectory(path: string, options: FileOptions & { mode?: number } = {}): Promise<boolean> {
    const { user, mode, ...call } = options
    const isCreated = (answer: unknown): answer is { created: boolean } =>
      isObject(answer) && typeof answer.created === 'boolean'
    const json = { path, user, mode }
    const call_ = { ...call, json, idempotent: true }
    return (await this.#connection.json('POST', this.#route('directory'), isCreated, call_)).created
  }

  async move(from: string, to: string, options: FileOptions = {}): Promise<FileInfo> {
    const { user, ...call } = options
    return this.#connection.json('POST', this.#route('move'), hasPath<FileInfo>, { ...call, json: { from, to, user } })
  }

  /** Makes a symlink at `path` that points to `target`, as given. `AlreadyExists` when something is there. */
  async symlink(target: string, path: string, options: FileOptions = {}): Promise<FileInfo> {
    const { user, ...call } = options
    const json = { target, path, user }
    return this.#connection.json('POST', this.#route('symlink'), hasPath<FileInfo>, { ...call, json })
  }

  /** A directory with all it holds; a symlink itself. */
  async remove(path: string, options: FileOptions = {}): Promise<void> {
    const { user, ...call } = options
    await this.#connection.delete(this.#route(), { ...call, query: { path, user } })
  }

  /** `mode`: permission bits; `owner`: `user`, `uid`, `user:group` or `uid:gid`. */
  async setAttributes(
    path: string,
    change: { mode?: number; owner?: string },
    options: FileOptions = {},
  ): Promise<FileInfo> {
    const { user, ...call } = options
    const json = { path, ...change, user }
    return this.#connection.json('PATCH', this.#route(), hasPath<FileInfo>, { ...call, json, idempotent: true })
  }

  /** Resolves once it watches. Leaving the loop, or the signal, ends it. */
  async watch(path: string, options: FileOptions & { recursive?: boolean } = {}): Promise<AsyncIterable<FileEvent>> {
    const { user, recursive, ...call } = options
    const query = { path, user, recursive }
    const headers = { accept: NDJSON }
    const response = await this.#connection.stream('GET', this.#route('watch'), { ...call, query, headers })
    const lines = objects(this.#connection, response, call)
    const first = await lines.next()
    if (first.done === true || first.value.type !== 'ready') throw notUnderstood('a watch that did not become ready')
    return events(lines)
  }

  #route(...rest: string[]): string {
    return route('sandboxes', this.#sandbox, 'files', ...rest)
  }
}

async function* events(lines: AsyncGenerator<Record<string, unknown>>): AsyncGenerator<FileEvent> {
  for await (const line of lines) {
    if (isWireError(line.error)) throw new IceboxError(undefined, line.error)
    if (line.type === 'overflow') yield { type: 'overflow' }
    else if (isChange(line)) yield line
  }
}

const CHANGES = new Set<unknown>(['create', 'write', 'remove', 'rename', 'chmod'])
const isChange = (line: Record<string, unknown>): line is { type: 'create'; path: string } =>
  CHANGES.has(line.type) && typeof line.path === 'string'

function fileInfo(header: string | string[] | undefined): FileInfo {
  try {
    const info: unknown = JSON.parse(Buffer.from(String(header), 'base64url').toString('utf8'))
    if (hasPath<FileInfo>(info)) return info
  } catch {
    // Said below.
  }
  throw notUnderstood('a file without X-File-Info')
}
