import { setTimeout as sleep } from 'node:timers/promises'
import type { CallOptions } from './deadline.ts'
import { isIceboxError } from './error.ts'

/** How long a server may be away, as when it is started anew, milliseconds. */
const AWAY_MS = 15_000
const AGAIN_AFTER_MS = 100

/**
 * Asks again while no server answers, for as long as one may be away and the call may take; then throws what it threw last. For
 * what does no harm when it is asked twice.
 */
export async function whileAway<T>(ask: () => Promise<T>, call: CallOptions): Promise<T> {
  const until = performance.now() + Math.min(AWAY_MS, call.requestTimeoutMs ?? AWAY_MS)
  for (;;) {
    try {
      return await ask()
    } catch (thrown) {
      if (!isIceboxError(thrown, 'Unavailable') || performance.now() >= until) throw thrown
    }
    await sleep(AGAIN_AFTER_MS)
    call.signal?.throwIfAborted()
  }
}
