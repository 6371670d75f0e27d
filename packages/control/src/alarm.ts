import { IceboxError } from '@icebox/model'
import type { Log } from './log.ts'

/** The times are of the clock on the wall, which may be set or jump over a sleep of the machine; a timer's is not. */
const LONGEST_WAIT_MS = 60_000
const RETRY_MS = 5_000

/**
 * One timer for many times that stand somewhere else: `look` does what is due and gives the nearest time that is not,
 * milliseconds since 1970, or undefined.
 */
export class Alarm {
  readonly #look: () => Promise<number | undefined>
  readonly #log: Log
  readonly #stopping: AbortSignal
  #timer: NodeJS.Timeout | undefined
  /** When it looks by itself. */
  #next = Number.POSITIVE_INFINITY
  #isLooking = false
  #again = false

  constructor(look: () => Promise<number | undefined>, log: Log, stopping: AbortSignal) {
    this.#look = look
    this.#log = log
    this.#stopping = stopping
    stopping.addEventListener('abort', () => clearTimeout(this.#timer))
  }

  /** Some time may have changed, or be over: looks again. Those who ask meanwhile share the look after this one. */
  changed(): void {
    this.#again = true
    if (!this.#isLooking) void this.#lookAgain()
  }

  /** A time was set, ISO 8601, and is written: looks no later than then. Looking at all for each would cost a crowd dearly. */
  at(time: string | undefined): void {
    if (time !== undefined) this.#wakeAt(Date.parse(time))
  }

  async #lookAgain(): Promise<void> {
    this.#isLooking = true
    while (this.#again && !this.#stopping.aborted) {
      this.#again = false
      clearTimeout(this.#timer)
      this.#next = Number.POSITIVE_INFINITY
      try {
        const nearest = await this.#look()
        // Others may have set times that it did not see.
        if (nearest !== undefined) this.#wakeAt(nearest)
      } catch (error) {
        this.#log('error', 'alarm.failed', { error: IceboxError.from(error).message })
        this.#wakeAt(Date.now() + RETRY_MS)
      }
    }
    this.#isLooking = false
  }

  #wakeAt(time: number): void {
    if (time >= this.#next || this.#stopping.aborted) return
    this.#next = time
    clearTimeout(this.#timer)
    const wait = Math.min(Math.max(0, time - Date.now()), LONGEST_WAIT_MS)
    this.#timer = setTimeout(() => this.changed(), wait).unref()
  }
}
