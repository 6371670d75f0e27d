import { createWriteStream } from 'node:fs'
import { pipeline } from 'node:stream/promises'
import { IceboxError } from '@icebox/model'
import type { FastifyRequest } from 'fastify'
import type { Context } from './context.ts'
import { readBody } from './raw.ts'

/** Bytes after which the disk is asked again: others write to it too. */
const INTERVAL_BYTES = 16_777_216

/**
 * Writes the body of a request into a new file, as long as there is room for it. `what` names it in refusals. Throws `TooLarge`,
 * `NoSpace`.
 */
export async function receive(
  request: FastifyRequest,
  file: string,
  { maxBytes, what }: { maxBytes: number; what: string },
  requireSpace: Context['requireSpace'],
  signal: AbortSignal,
): Promise<void> {
  const tooLarge = () => new IceboxError('TooLarge', `${what} has more than ${maxBytes} bytes`)
  const announced = Number(request.headers['content-length'] ?? 0)
  if (announced > maxBytes) throw tooLarge()
  if (announced > 0) await requireSpace(announced, what)
  async function* bounded() {
    let bytes = 0
    let unchecked = 0
    for await (const chunk of readBody(request)) {
      bytes += chunk.length
      unchecked += chunk.length
      if (bytes > maxBytes) throw tooLarge()
      if (unchecked > INTERVAL_BYTES) {
        unchecked = 0
        await requireSpace(INTERVAL_BYTES, what)
      }
      yield chunk
    }
  }
  await pipeline(bounded(), createWriteStream(file, { flags: 'wx', mode: 0o600 }), { signal })
}
