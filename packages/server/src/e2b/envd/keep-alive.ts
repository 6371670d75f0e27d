/** Seconds between signs of life when the client does not say. */
const DEFAULT_INTERVAL = 90
/** Milliseconds that a timer takes. */
const LONGEST_TIMER = 2 ** 31 - 1

/** Milliseconds, from the header that clients send it in. */
export function keepAliveInterval(header: Headers): number {
  const seconds = Number(header.get('keepalive-ping-interval') ?? DEFAULT_INTERVAL)
  return Math.min((Number.isFinite(seconds) && seconds > 0 ? seconds : DEFAULT_INTERVAL) * 1000, LONGEST_TIMER)
}
