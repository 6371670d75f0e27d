import type { OutgoingHttpHeaders } from 'node:http'
import { IceboxError } from '@icebox/model'
import type { FastifyReply } from 'fastify'
import { ClientGone, onceAborted, onceOver } from './client.ts'

/** The streamed answers that have not ended. They have no deadline: each lives as long as its client. */
export class Streams {
  readonly #open = new Set<AbortController>()
  readonly #enter: (reply: FastifyReply) => () => void

  /** `enter` lets one in that is to begin, or throws, and gives what is called once it is over. */
  constructor(enter: (reply: FastifyReply) => () => void = () => () => undefined) {
    this.#enter = enter
  }

  /**
   * Begins one: `start` must be done within the milliseconds. The signal, which `start` gets too, fires when the client goes
   * away, when the server closes, or when the start was late.
   */
  async open<T>(
    reply: FastifyReply,
    milliseconds: number,
    start: (signal: AbortSignal) => Promise<T>,
  ): Promise<{ started: T; signal: AbortSignal }> {
    const leave = this.#enter(reply)
    const controller = new AbortController()
    const { signal } = controller
    this.#open.add(controller)
    const { revoked } = reply.request
    const forget =
      revoked === undefined
        ? () => undefined
        : onceAborted(revoked, () => controller.abort(new IceboxError('Unauthorized', 'the API key was revoked')))
    onceOver(reply, () => {
      leave()
      forget()
      this.#open.delete(controller)
      controller.abort(new ClientGone())
    })
    signal.throwIfAborted()
    const { promise: aborted, reject } = Promise.withResolvers<never>()
    const abort = () => reject(signal.reason)
    signal.addEventListener('abort', abort, { once: true })
    const late = () =>
      controller.abort(new IceboxError('DeadlineExceeded', `the stream did not start within ${milliseconds / 1000} s`))
    const timer = setTimeout(late, milliseconds)
    try {
      return { started: await Promise.race([start(signal), aborted]), signal }
    } finally {
      clearTimeout(timer)
      signal.removeEventListener('abort', abort)
    }
  }

  /** Ends all of them; each tells its client why where its format can. */
  close(): void {
    for (const controller of this.#open)
      controller.abort(new IceboxError('Unavailable', 'the server is shutting down', { remedy: 'Start it again.' }))
  }
}

/** Takes a reply that goes well out of fastify's hands and begins it; the head leaves with the first bytes. */
export function sendHead(reply: FastifyReply, headers: OutgoingHttpHeaders, status: 200 | 206 = 200): void {
  reply.hijack()
  reply.raw.writeHead(status, { 'x-request-id': reply.request.id, 'cache-control': 'no-store', ...headers })
}

/**
 * Writes the chunks as they come, holding the source back while the client does not read. Resolves after the last one,
 * without ending the reply; rejects with the source's error, or with the signal's reason as soon as it fires.
 */
export async function pump(
  reply: FastifyReply,
  chunks: AsyncIterable<Uint8Array | string>,
  signal: AbortSignal,
): Promise<void> {
  const { raw } = reply
  const iterator = chunks[Symbol.asyncIterator]()
  // Not a race of promises: racing each of a million chunks with one signal would keep a million reactions.
  let interrupt: (reason: unknown) => void = () => undefined
  const onAbort = () => interrupt(signal.reason)
  signal.addEventListener('abort', onAbort, { once: true })
  try {
    for (;;) {
      signal.throwIfAborted()
      const next = await new Promise<IteratorResult<Uint8Array | string>>((resolve, reject) => {
        interrupt = reject
        iterator.next().then(resolve, reject)
      })
      if (next.done === true) return
      if (raw.write(next.value)) continue
      signal.throwIfAborted()
      await new Promise<void>((resolve, reject) => {
        interrupt = reject
        raw.once('drain', resolve)
      })
    }
  } finally {
    signal.removeEventListener('abort', onAbort)
    // A source that ignores its signal ends when it does: nobody waits for it.
    iterator.return?.()?.catch(() => undefined)
  }
}
