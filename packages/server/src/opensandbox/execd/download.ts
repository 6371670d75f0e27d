import { posix } from 'node:path'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import { sendBytes } from '../../bytes.ts'
import type { App } from '../../context.ts'
import { DEADLINE } from '../../deadline.ts'
import { integer } from '../../parameters.ts'
import type { Execd } from './facade.ts'
import { ExecdError } from './failure.ts'
import { statOf } from './permissions.ts'
import { Path } from './wire.ts'

/** Of a header `Range`, as bytes [from, to): the first range that has any. */
export function rangeOf(header: string, size: number): { from: number; to: number } {
  const wanted = /^bytes=(.+)$/i.exec(header.trim())?.[1]
  if (wanted === undefined) throw unsatisfiable(header, size)
  for (const each of wanted.split(',')) {
    const [, first = '', last = ''] = /^(\d*)\s*-\s*(\d*)$/.exec(each.trim()) ?? []
    if (first === '' && last === '') throw unsatisfiable(header, size)
    const from = first === '' ? Math.max(0, size - Number(last)) : Number(first)
    const to = first === '' || last === '' ? size : Math.min(size, Number(last) + 1)
    if (from < to) return { from, to }
  }
  throw unsatisfiable(header, size)
}

const unsatisfiable = (header: string, size: number) =>
  new ExecdError('range', 'InvalidArgument', `the range ${header} is not in the ${size} bytes of the file`, 416)

/** RFC 6266; what is not plain goes into the encoded form. */
function disposition(path: string): string {
  const name = posix.basename(path)
  const plain = name.replace(/[^\x20-\x7e]|["\\]/g, '_')
  return plain === name
    ? `attachment; filename="${plain}"`
    : `attachment; filename="${plain}"; filename*=UTF-8''${encodeURIComponent(name)}`
}

/** So many lines with their ends, after those before the first. */
async function* lines(data: AsyncIterable<Uint8Array>, first: number, count: number): AsyncGenerator<Uint8Array> {
  let line = 1
  for await (const chunk of data) {
    let from = line >= first ? 0 : -1
    let at = 0
    for (;;) {
      const end = chunk.indexOf(10, at)
      if (end === -1) break
      at = end + 1
      line++
      if (line === first) from = at
      if (line === first + count) {
        yield chunk.subarray(from, at)
        return
      }
    }
    if (from !== -1) yield chunk.subarray(from)
  }
}

/** The content of files. */
export async function downloadRoutes(app: App, execd: Execd): Promise<void> {
  const Line = integer(1, Number.MAX_SAFE_INTEGER).exactOptional()
  const Query = z.object({ path: Path, offset: Line, limit: Line })

  async function sendLines(request: FastifyRequest, reply: FastifyReply, query: z.infer<typeof Query>): Promise<void> {
    const { path, offset = 1, limit = Number.MAX_SAFE_INTEGER } = query
    const { started: file, signal } = await execd.streams.open(reply, DEADLINE.read, async (opened) => {
      const { guest, as } = await execd.files(request, opened)
      await statOf(guest, path, as, opened)
      return guest.readFile(path, as, opened)
    })
    await sendBytes(reply, { headers: { 'content-type': 'text/plain' } }, lines(file.data, offset, limit), signal)
  }

  app.get('/files/download', { schema: { querystring: Query } }, async (request, reply) => {
    const { path, offset, limit } = request.query
    const { range } = request.headers
    if (offset !== undefined || limit !== undefined) {
      if (range !== undefined)
        throw new ExecdError(
          'invalid',
          'InvalidArgument',
          'lines (offset, limit) and bytes (Range) cannot be asked for together',
        )
      return sendLines(request, reply, request.query)
    }
    const { started, signal } = await execd.streams.open(reply, DEADLINE.read, async (opened) => {
      const { guest, as } = await execd.files(request, opened)
      await statOf(guest, path, as, opened)
      if (range === undefined) return { file: await guest.readFile(path, as, opened) }
      // Read from its beginning for its size, which that of a symlink is not.
      const { info } = await guest.readFile(path, { ...as, length: 0 }, opened)
      const wanted = rangeOf(range, info.size)
      const part = { offset: wanted.from, length: wanted.to - wanted.from }
      return { file: await guest.readFile(path, { ...as, ...part }, opened), wanted }
    })
    const { file, wanted } = started
    const headers = {
      'content-type': 'application/octet-stream',
      'content-disposition': disposition(path),
      'accept-ranges': 'bytes',
      ...(wanted === undefined ? {} : { 'content-range': `bytes ${wanted.from}-${wanted.to - 1}/${file.info.size}` }),
    }
    const expected = wanted === undefined ? file.info.size : wanted.to - wanted.from
    await sendBytes(reply, { headers, expected, ...(wanted === undefined ? {} : { status: 206 }) }, file.data, signal)
  })
}
