import type { FastifyReply } from 'fastify'

/** Why a signal fired whose client is no longer there to be told. */
export class ClientGone extends Error {
  override readonly name = 'AbortError'
  constructor() {
    super('the client went away')
  }
}

/**
 * Calls the listener once when the answer has been sent or its client has gone away, at once when that has happened already.
 * Gives what takes the listener back.
 */
export function onceOver(reply: FastifyReply, listener: () => void): () => void {
  if (reply.raw.destroyed) listener()
  else reply.raw.once('close', listener)
  return () => reply.raw.off('close', listener)
}

/** Calls the listener once when the signal fires, at once when it has. Gives what takes the listener back. */
export function onceAborted(signal: AbortSignal, listener: () => void): () => void {
  if (signal.aborted) listener()
  else signal.addEventListener('abort', listener, { once: true })
  return () => signal.removeEventListener('abort', listener)
}
