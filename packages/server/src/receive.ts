import { createWriteStream } from 'node:fs'
import { pipeline } from 'node:stream/promises'
import { IceboxError } from '@icebox/model'
import type { FastifyRequest } from 'fastify'
import type { Context } from './context.ts'
import { readBody } from './raw.ts'

/**
 * Writes the body of a request into a new file, as long as there is room for it. `what` names it in refusals. Throws `TooLarge` beyond
 * `maxBytes`, where there are any, and `NoSpace`.
 */
export async function receive(
  request: FastifyRequest,
  file: string,
  { maxBytes = Number.POSITIVE_INFINITY, what }: { maxBytes?: number; what: string },
  withinSpace: Context['withinSpace'],
  signal: AbortSignal,
): Promise<void> {
  const tooLarge = () => new IceboxError('TooLarge', `${what} has more than ${maxBytes} bytes`)
  const length = request.headers['content-length']
  const announced = length === undefined ? undefined : Number(length)
  if (announced !== undefined && announced > maxBytes) throw tooLarge()
  async function* bounded() {
    let bytes = 0
    for await (const chunk of readBody(request)) {
      bytes += chunk.length
      if (bytes > maxBytes) throw tooLarge()
      yield chunk
    }
  }
  const content = withinSpace(bounded(), file, announced, what)
  await pipeline(content, createWriteStream(file, { flags: 'wx', mode: 0o600 }), { signal })
}
