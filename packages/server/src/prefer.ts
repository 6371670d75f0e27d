import type { Accepted } from '@icebox/control'
import type { FastifyReply } from 'fastify'
import { z } from 'zod'
import { onceOver } from './client.ts'

/** Seconds; more is taken as this. */
const LONGEST_WAIT = 3600

export const PreferHeader = z.looseObject({
  prefer: z
    .string()
    .optional()
    .describe('`wait=N`: answer when the operation has ended, or after N seconds (0–3600), whichever comes first.'),
})

/** Seconds of `wait=N`; undefined when there is none. As RFC 7240 wants, what is not understood is ignored. */
export function waitOf(prefer: string | undefined): number | undefined {
  const seconds = prefer?.match(/(?:^|[,;\s])wait\s*=\s*"?(\d{1,9})"?\s*(?:$|[,;\s])/i)?.[1]
  return seconds === undefined ? undefined : Math.min(Number(seconds), LONGEST_WAIT)
}

/**
 * Waits for an accepted operation as long as the client prefers and is there. Gives the resource once it has ended,
 * undefined when it has not; throws the operation's error. The operation goes on in any case.
 */
export async function settle<R>(
  reply: FastifyReply,
  { settled }: Accepted<R>,
  closing: AbortSignal,
): Promise<R | undefined> {
  // Whoever asked may be gone by then: the resource's own status tells of a failure.
  settled.catch(() => undefined)
  const { prefer } = reply.request.headers
  const seconds = waitOf(typeof prefer === 'string' ? prefer : undefined)
  if (seconds === undefined) return undefined
  reply.header('preference-applied', `wait=${seconds}`)
  const { promise: over, resolve } = Promise.withResolvers<undefined>()
  const stop = () => resolve(undefined)
  const timer = setTimeout(stop, seconds * 1000)
  const forget = onceOver(reply, stop)
  closing.addEventListener('abort', stop, { once: true })
  try {
    return await Promise.race([settled, over])
  } finally {
    clearTimeout(timer)
    forget()
    closing.removeEventListener('abort', stop)
  }
}
