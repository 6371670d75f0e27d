import { IceboxError } from '@icebox/model'
import type { Log } from './context.ts'

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
  #looking: Promise<void> = Promise.resolve()

  constructor(look: () => Promise<number | undefined>, log: Log, stopping: AbortSignal) {
    this.#look = look
    this.#log = log
    this.#stopping = stopping
    stopping.addEventListener('abort', () => clearTimeout(this.#timer))
  }

  /** Some time may have changed: looks again. */
  changed(): void {
    this.#looking = this.#looking.then(async () => {
      if (this.#stopping.aborted) return
      try {
        this.#set(await this.#look())
      } catch (error) {
        this.#log('error', 'alarm.failed', { error: IceboxError.from(error).message })
        this.#set(Date.now() + RETRY_MS)
      }
    })
  }

  #set(time: number | undefined): void {
    clearTimeout(this.#timer)
    if (time === undefined || this.#stopping.aborted) return
    const wait = Math.min(Math.max(0, time - Date.now()), LONGEST_WAIT_MS)
    this.#timer = setTimeout(() => this.changed(), wait).unref()
  }
}
