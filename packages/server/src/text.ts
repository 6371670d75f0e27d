import { IceboxError, isError } from '@icebox/model'
import type { FastifyReply } from 'fastify'
import { ClientGone } from './client.ts'
import { pump, sendHead } from './stream.ts'

/** Answers with text of unknown length, as it comes. Cut when its source fails, so that the client sees that it is not whole. */
export async function sendText(
  reply: FastifyReply,
  text: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
  contentType = 'text/plain; charset=utf-8',
): Promise<void> {
  sendHead(reply, { 'content-type': contentType })
  // Who follows wants to know at once that there is something to follow.
  reply.raw.flushHeaders()
  try {
    await pump(reply, text, signal)
    reply.raw.end()
  } catch (thrown) {
    if (!(thrown instanceof ClientGone)) reply.request.failure = IceboxError.from(thrown)
    if (isError(thrown, 'Unavailable')) reply.raw.end()
    else reply.raw.destroy()
  }
}
