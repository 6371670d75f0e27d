import type { IncomingMessage } from 'node:http'
import { isIPv6 } from 'node:net'
import { IceboxError } from '@icebox/model'
import { isLoopback } from './access.ts'

/** Refusals at once and each second from then on: of one address, and of all of them. */
export interface Rate {
  burst: number
  perSecond: number
}

const EACH: Rate = { burst: 1_000, perSecond: 100 }
const IN_ALL: Rate = { burst: 10_000, perSecond: 1_000 }
/** Addresses that are remembered: those that came last. */
const REMEMBERED = 4_096

/** Fills up with time, by a clock that nobody sets. */
class Bucket {
  readonly #rate: Rate
  #left: number
  #at = performance.now()

  constructor(rate: Rate) {
    this.#rate = rate
    this.#left = rate.burst
  }

  /** Seconds until there is something in it; 0: there is. */
  get wait(): number {
    const now = performance.now()
    this.#left = Math.min(this.#rate.burst, this.#left + ((now - this.#at) / 1000) * this.#rate.perSecond)
    this.#at = now
    return this.#left >= 1 ? 0 : (1 - this.#left) / this.#rate.perSecond
  }

  take(): void {
    this.#left--
  }
}

/**
 * How often callers without a valid key may be refused, or make the server look for what they mean. Requests to a public port that are
 * served do not count, and those with a valid key are not stopped by what others of their address do.
 */
export class Strangers {
  readonly #each: Rate
  readonly #all: Bucket
  /** By address, those that came last at the end. */
  readonly #buckets = new Map<string, Bucket>()

  constructor(each: Rate = EACH, inAll: Rate = IN_ALL) {
    this.#each = each
    this.#all = new Bucket(inAll)
  }

  /** Throws `TooManyRequests` when the caller has had its refusals for the moment. */
  check(request: IncomingMessage): void {
    const wait = Math.max(this.#buckets.get(addressOf(request))?.wait ?? 0, this.#all.wait)
    if (wait === 0) return
    throw new IceboxError('TooManyRequests', 'too many requests without a valid key were refused', {
      remedy: 'Use a valid key, or try again later.',
      details: { retryAfterSeconds: Math.ceil(wait) },
    })
  }

  /** Counts a refusal. */
  refused(request: IncomingMessage): void {
    const address = addressOf(request)
    const bucket = this.#buckets.get(address) ?? new Bucket(this.#each)
    this.#buckets.delete(address)
    for (const [oldest] of this.#buckets) {
      if (this.#buckets.size < REMEMBERED) break
      this.#buckets.delete(oldest)
    }
    this.#buckets.set(address, bucket)
    bucket.take()
    this.#all.take()
  }
}

/** Who asked. A proxy on this machine is believed. Of IPv6 the network: a single caller has all the addresses in it. */
function addressOf({ headers, socket }: IncomingMessage): string {
  const peer = withoutMapping(socket.remoteAddress ?? '')
  const forwarded = headers['x-forwarded-for']
  const last =
    isLoopback(peer) && typeof forwarded === 'string' ? forwarded.slice(forwarded.lastIndexOf(',') + 1).trim() : ''
  const address = last === '' ? peer : withoutMapping(last.slice(0, 64))
  return isIPv6(address) ? networkOf(address) : address
}

const withoutMapping = (address: string): string =>
  address.startsWith('::ffff:') && address.includes('.') ? address.slice('::ffff:'.length) : address

/** The first 64 bits. */
function networkOf(address: string): string {
  const [before = '', after] = address.split('::')
  const groups = before === '' ? [] : before.split(':')
  if (after !== undefined) {
    const rest = after === '' ? 0 : after.split(':').length
    while (groups.length + rest < 8) groups.push('0')
  }
  return groups.slice(0, 4).join(':')
}
