import type { OutgoingHttpHeaders } from 'node:http'
import type { Response } from './call.ts'
import { restError } from './errors.ts'

export function sendJson(response: Response, status: number, body: unknown, headers: OutgoingHttpHeaders = {}): void {
  const text = JSON.stringify(body)
  response.writeHead(status, {
    ...headers,
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(text),
  })
  response.end(text)
}

/** Answers in envd's shape. An answer that has begun is cut, so that the client sees that it is not whole. */
export function sendError(response: Response, thrown: unknown): void {
  if (response.destroyed) return
  if (response.headersSent) response.destroy()
  else {
    const { status, message } = restError(thrown)
    sendJson(response, status, { code: status, message })
  }
}

/** Answers that a method is not one of the path's. */
export const sendMethodNotAllowed = (response: Response, allow: string): void =>
  sendJson(response, 405, { code: 405, message: 'method not allowed' }, { allow })

/** As the gateway says of a sandbox that cannot be reached. */
export const sendUnreachable = (response: Response, sandboxId: string, message: string): void =>
  sendJson(response, 502, { sandboxId, message, code: 502 })

/** Writes the chunks as fast as the client reads them. Rejects with the signal's reason as soon as it fires. */
export async function writeAll(
  response: Response,
  chunks: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): Promise<void> {
  let interrupt: (reason: unknown) => void = () => undefined
  const onAbort = () => interrupt(signal.reason)
  signal.addEventListener('abort', onAbort, { once: true })
  const iterator = chunks[Symbol.asyncIterator]()
  try {
    for (;;) {
      signal.throwIfAborted()
      const next = await new Promise<IteratorResult<Uint8Array>>((resolve, reject) => {
        interrupt = reject
        iterator.next().then(resolve, reject)
      })
      if (next.done === true) return
      if (response.write(next.value)) continue
      signal.throwIfAborted()
      await new Promise<void>((resolve, reject) => {
        interrupt = reject
        response.once('drain', resolve)
      })
    }
  } finally {
    signal.removeEventListener('abort', onAbort)
    // A source that ignores its signal ends when it does: nobody waits for it.
    iterator.return?.()?.catch(() => undefined)
  }
}
