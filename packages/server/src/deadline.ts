import { IceboxError } from '@icebox/model'
import type { FastifyReply } from 'fastify'
import { ClientGone, onceOver } from './client.ts'

/** Milliseconds a request may take before it is answered with `DeadlineExceeded`. */
export const DEADLINE = {
  /** Looking something up, in the store or in a guest that runs; the start of a stream. */
  read: 30_000,
  /** The same of a guest whose sandbox may have to be resumed first, perhaps with many others. */
  reach: 150_000,
  /** Until an operation is accepted: it may have to wait for a save of the same sandbox. */
  accept: 660_000,
  /** Work that ends with its request: forks, pulls, uploads, exports, rereading a snapshot. */
  work: 3_600_000,
} as const

/**
 * Runs work with a signal that fires at the deadline and, when `client` is given, when the client goes away: pass it for
 * reads, leave it out for what goes on once it was accepted. Once the work has ended its signal never fires.
 * Does not wait for work that ignores its signal.
 */
export async function within<T>(
  milliseconds: number,
  work: (signal: AbortSignal) => Promise<T>,
  client?: FastifyReply,
): Promise<T> {
  const controller = new AbortController()
  const { promise: aborted, reject } = Promise.withResolvers<never>()
  const abort = (reason: Error) => {
    controller.abort(reason)
    reject(reason)
  }
  const timer = setTimeout(
    () => abort(new IceboxError('DeadlineExceeded', `the request was not done within ${milliseconds / 1000} s`)),
    milliseconds,
  )
  const forget = client && onceOver(client, () => abort(new ClientGone()))
  try {
    return await Promise.race([work(controller.signal), aborted])
  } finally {
    clearTimeout(timer)
    forget?.()
  }
}
