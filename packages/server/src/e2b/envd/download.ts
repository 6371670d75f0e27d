import { posix } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { createGzip, constants as zlib } from 'node:zlib'
import { type FileInfo, IceboxError, isError } from '@icebox/model'
import { writeAll } from './answer.ts'
import { accessOf, bounded, type Call, guestPath, type Request, type Response } from './call.ts'
import { chosenEncoding } from './encoding.ts'
import { RestError } from './errors.ts'

/** Bytes read before the head is sent: what ends within them has a known length, whatever its file system says. */
const PEEK = 65_536

/** As Go knows them without a file of types, and plain text. */
const TYPES: Readonly<Record<string, string>> = {
  '.avif': 'image/avif',
  '.css': 'text/css; charset=utf-8',
  '.gif': 'image/gif',
  '.htm': 'text/html; charset=utf-8',
  '.html': 'text/html; charset=utf-8',
  '.jpeg': 'image/jpeg',
  '.jpg': 'image/jpeg',
  '.js': 'text/javascript; charset=utf-8',
  '.json': 'application/json',
  '.mjs': 'text/javascript; charset=utf-8',
  '.pdf': 'application/pdf',
  '.png': 'image/png',
  '.svg': 'image/svg+xml',
  '.txt': 'text/plain; charset=utf-8',
  '.wasm': 'application/wasm',
  '.webp': 'image/webp',
  '.xml': 'text/xml; charset=utf-8',
}

const typeOf = (path: string): string => TYPES[posix.extname(path).toLowerCase()] ?? 'application/octet-stream'

/** Shown in place; the name as a token, quoted, or in UTF-8, as it needs. */
export function dispositionOf(name: string): string {
  if (/^[\w!#$%&'*+.^`|~-]+$/.test(name)) return `inline; filename=${name}`
  if (/^[\x20-\x7e]*$/.test(name)) return `inline; filename="${name.replace(/["\\]/g, '\\$&')}"`
  const encoded = encodeURIComponent(name).replace(/['()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`)
  return `inline; filename*=utf-8''${encoded}`
}

interface Range {
  offset: number
  length: number
}

/** Of `bytes=…` with one range; undefined: the whole. Throws a `RestError` with 416 when nothing of it is there. */
export function rangeOf(header: string | undefined, size: number): Range | undefined {
  const [, from = '', to = ''] = header?.match(/^bytes=(\d*)-(\d*)$/) ?? []
  if (from === '' && to === '') return undefined
  if (from !== '' && to !== '' && Number(to) < Number(from)) return undefined
  const offset = from === '' ? Math.max(0, size - Number(to)) : Number(from)
  const end = from === '' || to === '' ? size : Math.min(size, Number(to) + 1)
  if (offset >= end) throw new RestError(416, `the file has ${size} bytes`)
  return { offset, length: end - offset }
}

/** Whether the client has the file as it is now. Both in whole seconds, as HTTP has them. */
const isUnchanged = (since: string | undefined, { modifiedAt }: FileInfo): boolean =>
  since !== undefined && Math.floor(Date.parse(modifiedAt) / 1000) * 1000 <= Date.parse(since)

/** `GET /files`: the bytes of one file. */
export async function download(
  request: Request,
  response: Response,
  query: URLSearchParams,
  call: Call,
  signal: AbortSignal,
): Promise<void> {
  const access = accessOf(call)
  const path = guestPath(query.get('path') ?? '', call)
  const { headers } = request
  const conditions = ['if-modified-since', 'if-none-match', 'if-range']
  const isPartial = headers.range !== undefined || conditions.some((name) => headers[name] !== undefined)
  const encoding = chosenEncoding(text(headers['accept-encoding']), isPartial)
  try {
    let range: Range | undefined
    if (isPartial) {
      // Opening it tells of what it is, through symlinks.
      const { info } = await call.guest.readFile(path, { ...access, length: 0 }, bounded(signal, 'short'))
      if (headers.range === undefined && isUnchanged(text(headers['if-modified-since']), info)) {
        response.writeHead(304, { vary: 'Accept-Encoding' })
        response.end()
        return
      }
      const ifRange = text(headers['if-range'])
      if (ifRange === undefined || isUnchanged(ifRange, info))
        try {
          range = rangeOf(text(headers.range), info.size)
        } catch (thrown) {
          response.setHeader('content-range', `bytes */${info.size}`)
          throw thrown
        }
    }
    const { info, data } = await call.guest.readFile(path, { ...access, ...range }, bounded(signal, 'long'))
    await send(response, info, data, { encoding, range }, signal)
  } catch (thrown) {
    throw await refusal(thrown, path, call, signal)
  }
}

const text = (header: string | string[] | undefined): string | undefined =>
  Array.isArray(header) ? header.join(', ') : header

async function send(
  response: Response,
  info: FileInfo,
  data: AsyncIterable<Uint8Array>,
  { encoding, range }: { encoding: 'gzip' | 'identity'; range: Range | undefined },
  signal: AbortSignal,
): Promise<void> {
  const headers = {
    'content-type': typeOf(info.path),
    'content-disposition': dispositionOf(info.name),
    'last-modified': new Date(info.modifiedAt).toUTCString(),
    vary: 'Accept-Encoding',
  }
  if (encoding === 'gzip') {
    response.writeHead(200, { ...headers, 'content-encoding': 'gzip' })
    const gzip = createGzip({ level: zlib.Z_BEST_SPEED })
    const compressing = pipeline(Readable.from(data), gzip, { signal })
    await Promise.all([compressing, writeAll(response, gzip, signal)])
    response.end()
    return
  }
  const { first, rest, length } = await peek(data, range?.length ?? info.size)
  response.writeHead(range === undefined ? 200 : 206, {
    ...headers,
    'accept-ranges': 'bytes',
    ...(length === undefined ? {} : { 'content-length': length }),
    ...(range && { 'content-range': `bytes ${range.offset}-${range.offset + range.length - 1}/${info.size}` }),
  })
  await writeAll(response, exactly(length, first, rest), signal)
  response.end()
}

/** Files of /proc say that they have 0 bytes, of /sys more than they have: what is short is read before its length is told. */
async function peek(
  data: AsyncIterable<Uint8Array>,
  expected: number,
): Promise<{ first: Uint8Array[]; rest: AsyncIterator<Uint8Array>; length: number | undefined }> {
  const rest = data[Symbol.asyncIterator]()
  const first: Uint8Array[] = []
  for (let peeked = 0; peeked < PEEK; ) {
    const next = await rest.next()
    if (next.done === true) return { first, rest, length: peeked }
    if (next.value.length === 0) continue
    first.push(next.value)
    peeked += next.value.length
    if (peeked > expected) return { first, rest, length: undefined }
  }
  return { first, rest, length: expected }
}

/** Up to the length promised (a file may grow); throws when it is less. */
async function* exactly(
  length: number | undefined,
  first: Uint8Array[],
  rest: AsyncIterator<Uint8Array>,
): AsyncGenerator<Uint8Array, void, void> {
  let left = length ?? Number.POSITIVE_INFINITY
  try {
    for (;;) {
      const chunk = first.shift() ?? (await rest.next())
      const bytes = chunk instanceof Uint8Array ? chunk : chunk.done === true ? undefined : chunk.value
      if (bytes === undefined) break
      yield bytes.subarray(0, left)
      left -= bytes.length
      if (left <= 0) break
    }
    if (length !== undefined && left > 0)
      throw new IceboxError('GuestFailed', `the file is ${left} bytes short: it was changed while it was read`)
  } finally {
    await rest.return?.()
  }
}

/** envd's words for a file that cannot be read. */
async function refusal(thrown: unknown, path: string, call: Call, signal: AbortSignal): Promise<unknown> {
  if (isError(thrown, 'NotFound') && thrown.details.errno !== undefined)
    return new RestError(404, `path '${path}' does not exist`)
  if (!isError(thrown, 'InvalidArgument')) return thrown
  const isDirectory = await call.guest.list(path, { ...accessOf(call), depth: 1 }, bounded(signal, 'short')).then(
    () => true,
    () => false,
  )
  return isDirectory ? new RestError(400, `path '${path}' is a directory`) : thrown
}
