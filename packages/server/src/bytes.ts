import type { OutgoingHttpHeaders } from 'node:http'
import { IceboxError } from '@icebox/model'
import type { FastifyReply } from 'fastify'
import { ClientGone } from './client.ts'
import { pump, sendHead } from './stream.ts'

/** Bytes read before the head is sent: what ends within them has a known length, whatever its file system says. */
const PEEK = 65_536

/**
 * Answers with bytes. `expected` is the length as far as it is known beforehand: files of /proc say 0, of /sys more than
 * they have. An answer that cannot be completed is cut, so that the client sees that it is not whole.
 */
export async function sendBytes(
  reply: FastifyReply,
  options: { headers: OutgoingHttpHeaders; expected?: number; status?: 200 | 206 },
  data: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<void> {
  const source = data[Symbol.asyncIterator]()
  const first: Uint8Array[] = []
  let peeked = 0
  let ended = false
  try {
    while (!ended && peeked < PEEK) {
      signal.throwIfAborted()
      const next = await source.next()
      if (next.done === true) ended = true
      else if (next.value.length > 0) peeked += first[first.push(next.value) - 1]?.length ?? 0
    }
  } catch (thrown) {
    source.return?.()?.catch(() => undefined)
    throw thrown
  }
  const length = ended
    ? peeked
    : options.expected !== undefined && options.expected >= peeked
      ? options.expected
      : undefined
  sendHead(reply, { ...options.headers, ...(length === undefined ? {} : { 'content-length': length }) }, options.status)
  if (ended) {
    reply.raw.end(Buffer.concat(first))
    return
  }
  try {
    await pump(reply, exactly(length, first, source), signal)
    reply.raw.end()
  } catch (thrown) {
    if (!(thrown instanceof ClientGone)) reply.request.failure = IceboxError.from(thrown)
    reply.raw.destroy()
  }
}

/** What was peeked and the rest, up to the length promised (a file may grow); throws when it is less. */
async function* exactly(
  length: number | undefined,
  first: Uint8Array[],
  rest: AsyncIterator<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  let sent = 0
  try {
    yield* first
    for (const chunk of first) sent += chunk.length
    while (length === undefined || sent < length) {
      const next = await rest.next()
      if (next.done === true) break
      const chunk = length === undefined ? next.value : next.value.subarray(0, length - sent)
      sent += chunk.length
      yield chunk
    }
    if (length !== undefined && sent < length)
      throw new IceboxError(
        'GuestFailed',
        `the file ended after ${sent} of ${length} bytes: it was changed while it was read`,
      )
  } finally {
    await rest.return?.()
  }
}
