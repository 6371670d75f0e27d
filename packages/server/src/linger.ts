import type { IncomingMessage } from 'node:http'

/** Milliseconds for which the rest of a body is still taken off a client that has its answer. */
const LINGER = 5_000

/**
 * An answer may be given before its request has arrived whole, such as when a disk is full. Closing the connection then
 * would make the client's system throw the answer away with it; not reading on would leave the client stuck. So the rest is
 * read and dropped for a while.
 */
export function linger(request: IncomingMessage): void {
  if (request.complete || request.destroyed) return
  const timer = setTimeout(() => request.destroy(), LINGER)
  request.once('close', () => clearTimeout(timer))
  // A listener: resuming alone does nothing while somebody who has not heard yet still waits for a piece to read.
  request.on('data', () => undefined)
  request.resume()
}
