import { wireError } from '@icebox/control'
import { IceboxError } from '@icebox/model'
import type { FastifyReply } from 'fastify'
import { pump, sendHead } from './stream.ts'

export const NDJSON = 'application/x-ndjson'

/** One JSON object and a newline. */
export const line = (object: object): string => `${JSON.stringify(object)}\n`

/**
 * Answers with lines of JSON. What goes wrong from here on is told in a last line, made by `failure`: the status has been
 * sent. Resolves when the reply has ended.
 */
export async function sendLines(
  reply: FastifyReply,
  lines: AsyncIterable<string>,
  signal: AbortSignal,
  failure: (error: ReturnType<typeof wireError>) => object,
): Promise<void> {
  sendHead(reply, { 'content-type': NDJSON })
  try {
    await pump(reply, lines, signal)
  } catch (thrown) {
    if (reply.raw.destroyed) return
    const error = IceboxError.from(thrown)
    reply.request.failure = error
    reply.raw.write(line(failure(wireError(error))))
  }
  reply.raw.end()
}
