import { IceboxError } from './errors.ts'

/** What every kept item costs besides its own bytes: its object, its place in a queue. */
export const ITEM_BYTES = 256

/** Bytes held of a budget until they are given back. Giving back again does nothing. */
export interface Reservation extends Disposable {
  readonly bytes: number
  /** Changes how much is held. Throws `TooManyRequests` when more does not fit; then as much is held as before. */
  resize(bytes: number): void
  release(): void
}

/**
 * Bytes that may be kept in memory at once. Whoever keeps something reserves it first. A budget stands within another: what it
 * holds, those around it hold too, so that one request, link or project reaches its own bound before it reaches the server's.
 */
export class Budget {
  /** Says in errors what is full, such as `the link of sandbox x`. */
  readonly name: string
  /** Bytes. */
  readonly limit: number
  readonly #within: Budget | undefined
  #used = 0

  constructor(name: string, limit: number, within?: Budget) {
    this.name = name
    this.limit = limit
    this.#within = within
  }

  /** Bytes held at present. */
  get used(): number {
    return this.#used
  }

  /** Throws `TooManyRequests`, which names the budget that is full; then nothing is held. */
  reserve(bytes: number): Reservation {
    this.#take(bytes)
    let held = bytes
    let released = false
    const release = () => {
      if (released) return
      released = true
      this.#give(held)
    }
    return {
      get bytes() {
        return released ? 0 : held
      },
      resize: (wanted) => {
        if (released) return
        if (wanted > held) this.#take(wanted - held)
        else this.#give(held - wanted)
        held = wanted
      },
      release,
      [Symbol.dispose]: release,
    }
  }

  #take(bytes: number): void {
    if (this.#used + bytes > this.limit)
      throw new IceboxError(
        'TooManyRequests',
        `${this.name} holds ${this.#used} of ${this.limit} bytes: ${bytes} more do not fit`,
        {
          details: { budget: this.name, limitBytes: this.limit },
        },
      )
    if (this.#within !== undefined) this.#within.#take(bytes)
    this.#used += bytes
  }

  #give(bytes: number): void {
    this.#used -= bytes
    if (this.#within !== undefined) this.#within.#give(bytes)
  }
}

/** Budgets of the same size by name, within one. Those that hold nothing are forgotten. */
export class Budgets {
  readonly #nameOf: (key: string) => string
  readonly #limit: number
  readonly #within: Budget | undefined
  readonly #budgets = new Map<string, Budget>()
  /** How many there may be before those that hold nothing are forgotten: twice as many as held anything the last time. */
  #sweepAt = 64

  constructor(nameOf: (key: string) => string, limit: number, within?: Budget) {
    this.#nameOf = nameOf
    this.#limit = limit
    this.#within = within
  }

  /** The budget of the key. To be asked for anew whenever something is reserved. */
  of(key: string): Budget {
    const known = this.#budgets.get(key)
    if (known !== undefined) return known
    if (this.#budgets.size >= this.#sweepAt) this.#sweep()
    const budget = new Budget(this.#nameOf(key), this.#limit, this.#within)
    this.#budgets.set(key, budget)
    return budget
  }

  #sweep(): void {
    for (const [key, budget] of this.#budgets) if (budget.used === 0) this.#budgets.delete(key)
    this.#sweepAt = Math.max(64, 2 * this.#budgets.size)
  }
}

/**
 * All bytes of a stream, at most `maxBytes` of them. `held`, when given, grows with them and stays the caller's to release once it is
 * done with what it got. Throws `TooLarge` beyond `maxBytes`, `TooManyRequests` when the budget is full; the stream is ended either way.
 */
export async function collect(
  stream: AsyncIterable<Uint8Array>,
  maxBytes: number,
  held?: Reservation,
): Promise<Uint8Array<ArrayBuffer>> {
  const before = held?.bytes ?? 0
  const chunks: Uint8Array[] = []
  let bytes = 0
  for await (const chunk of stream) {
    bytes += chunk.byteLength
    if (bytes > maxBytes) throw new IceboxError('TooLarge', `more than ${maxBytes} bytes came where so many may come`)
    held?.resize(before + bytes + (chunks.length + 1) * ITEM_BYTES)
    chunks.push(chunk)
  }
  const all = new Uint8Array(bytes)
  let at = 0
  for (const chunk of chunks) {
    all.set(chunk, at)
    at += chunk.byteLength
  }
  held?.resize(before + bytes)
  return all
}
