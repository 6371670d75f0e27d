import type { IncomingHttpHeaders } from 'node:http'
import { Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'
import { Busboy, type BusboyFileStream } from '@fastify/busboy'
import { collect, type FileInfo, IceboxError, ITEM_BYTES, isError, type Reservation } from '@icebox/model'
import { sendJson } from './answer.ts'
import { accessOf, bounded, type Call, guestPath, type Request, type Response } from './call.ts'
import { isGzipped } from './encoding.ts'
import { METADATA_PREFIX } from './entry.ts'
import { RestError } from './errors.ts'
import { metadataXattrs } from './metadata.ts'

/** Parts of a form that wait for those before them to be written; small ones are in memory by then. */
const MAX_WAITING = 4
/** Of the parts of a form that are no files, which nobody looks at. */
const FIELD_LIMITS = { fieldSize: 1024, fields: 1000, headerPairs: 32, headerSize: 16_384 }

/** What is told of a file that was written. */
export interface Written {
  path: string
  name: string
  type: 'file'
  metadata?: Record<string, string>
}

export function written({ path, name }: FileInfo, xattrs: Record<string, string> = {}): Written {
  const metadata = Object.entries(xattrs).map(([key, value]) => [key.slice(METADATA_PREFIX.length), value] as const)
  return { path, name, type: 'file', ...(metadata.length > 0 ? { metadata: Object.fromEntries(metadata) } : {}) }
}

/** `POST /files`: writes one file that is the body, or as many as a form has. Each is in place once it is whole. */
export async function upload(
  request: Request,
  response: Response,
  query: URLSearchParams,
  call: Call,
  client: AbortSignal,
): Promise<void> {
  const type = request.headers['content-type'] ?? ''
  const media = type.split(';')[0]?.trim().toLowerCase() ?? ''
  const xattrs = metadataXattrs(request.rawHeaders)
  const path = query.get('path') ?? undefined
  const body = decompressed(request, isGzipped(request.headers['content-encoding']))
  const signal = bounded(client, 'long')
  const write = async (to: string, data: AsyncIterable<Uint8Array>): Promise<Written> => {
    const info = await call.guest
      .writeFile(guestPath(to, call), data, { ...accessOf(call), xattrs }, signal)
      .catch((thrown: unknown) => {
        throw refusal(thrown, request.headers)
      })
    return written(info, xattrs)
  }
  if (media === 'application/octet-stream') {
    if (path === undefined) throw new RestError(400, 'a body that is one file needs the query parameter path')
    sendJson(response, 200, [await write(path, body)])
  } else if (media === 'multipart/form-data') {
    sendJson(
      response,
      200,
      await writeForm({ ...request.headers, 'content-type': type }, body, path, call.hold(), write),
    )
  } else
    throw new RestError(
      400,
      `content type ${JSON.stringify(type)}: send multipart/form-data or application/octet-stream`,
    )
}

function decompressed(request: Request, gzipped: boolean): AsyncIterable<Buffer> {
  const body = () => request.iterator({ destroyOnReturn: false })
  if (!gzipped) return body()
  const gunzip = createGunzip()
  const source = Readable.from(body(), { objectMode: false })
  source.on('error', (thrown) => gunzip.destroy(thrown))
  return source.pipe(gunzip)
}

function refusal(thrown: unknown, headers: IncomingHttpHeaders): unknown {
  if (!isError(thrown, 'NoSpace')) {
    const code = thrown instanceof Error && 'code' in thrown ? String(thrown.code) : ''
    return code.startsWith('Z_') ? new RestError(400, `error decompressing request body: ${code}`) : thrown
  }
  const length = headers['content-length']
  const attempt = length === undefined ? '' : `attempted to write ${length} bytes: `
  return new RestError(507, `${attempt}not enough disk space available`)
}

/**
 * Writes the files of a form in turn. Without `path` each goes where its file name says. What was written before a failure stays
 * written. Not writing holds the client back.
 */
async function writeForm(
  headers: { 'content-type': string },
  body: AsyncIterable<Buffer>,
  path: string | undefined,
  held: Reservation,
  write: (path: string, data: AsyncIterable<Uint8Array>) => Promise<Written>,
): Promise<Written[]> {
  const { promise: failed, reject } = Promise.withResolvers<never>()
  failed.catch(() => undefined)
  const form = openForm(headers)
  const files = new Map<string, Written>()
  const open = new Set<BusboyFileStream>()
  let done = Promise.withResolvers<void>()
  let turn: Promise<void> = Promise.resolve()
  form.on('file', (_field: string, data: BusboyFileStream, name: string | undefined) => {
    open.add(data)
    // Its failure is that of the form, which is told below.
    data.on('error', reject)
    turn = turn.then(async () => {
      const to = path ?? name
      if (!to) throw new RestError(400, 'a part of the form has neither a file name nor a path')
      const file = await write(to, data)
      if (files.has(file.path)) throw new RestError(400, `two files of the form have the same path '${file.path}'`)
      held.resize(held.bytes + ITEM_BYTES + 4 * file.path.length)
      files.set(file.path, file)
      open.delete(data)
      done.resolve()
      done = Promise.withResolvers()
    })
    turn.catch(reject)
  })
  const finished = new Promise<void>((resolve) => form.once('finish', resolve))
  form.once('error', (thrown) => reject(badForm(thrown)))
  const feed = async (): Promise<void> => {
    try {
      for await (const chunk of body) {
        await new Promise<void>((resolve) => form.write(chunk, () => resolve()))
        // The last of them may need more of the body before it is whole.
        while (open.size > MAX_WAITING) await done.promise
      }
    } catch (thrown) {
      throw refusal(thrown, {})
    }
    form.end()
    await finished
    await turn
  }
  try {
    await Promise.race([feed(), failed])
  } finally {
    form.removeAllListeners()
    form.on('error', () => undefined)
    form.destroy()
    // A write that waits for the rest of its file must not wait for ever.
    for (const data of open) data.destroy(new IceboxError('InvalidArgument', 'the form has failed'))
  }
  return [...files.values()]
}

const badForm = (thrown: unknown): RestError =>
  new RestError(400, `error reading form: ${thrown instanceof Error ? thrown.message : thrown}`)

function openForm(headers: { 'content-type': string }): InstanceType<typeof Busboy> {
  try {
    return new Busboy({
      headers,
      preservePath: true,
      isPartAFile: (field) => field === 'file',
      limits: FIELD_LIMITS,
    })
  } catch (thrown) {
    throw badForm(thrown)
  }
}

/** The body of a request as JSON, of at most so many bytes. */
export async function readJson(request: Request, limit: number, held: Reservation): Promise<unknown> {
  const body = await collect(request.iterator({ destroyOnReturn: false }), limit, held)
  try {
    return JSON.parse(Buffer.from(body.buffer).toString())
  } catch {
    throw new RestError(400, 'invalid request body: it is not JSON')
  }
}
