import { IceboxError, isError, type Sandbox } from '@icebox/model'
import type { Log } from './context.ts'
import type { Records } from './records.ts'
import { isDue, isExpiring } from './sandboxes/time.ts'

/** Longest delay that setTimeout takes. */
const LONGEST_WAIT_MS = 2 ** 31 - 1
/** How long a sandbox is left alone whose end could not be carried out: each try of a pause holds it up. */
const RETRY_MS = 10_000

/**
 * Carries out what is to happen to sandboxes when their time is over. The time stands in the resource, so that it survives a
 * restart and an extension needs no second write; here is only one timer, for the nearest.
 */
export class Expiry {
  readonly #records: Records
  readonly #expire: (sandbox: Sandbox) => Promise<void>
  readonly #log: Log
  readonly #stopping: AbortSignal
  #timer: NodeJS.Timeout | undefined
  #checking: Promise<void> = Promise.resolve()
  /** Whose end is being carried out, or is to be tried again later. */
  readonly #ending = new Set<string>()

  constructor(options: {
    records: Records
    /** Deletes or pauses one. */
    expire: (sandbox: Sandbox) => Promise<void>
    log: Log
    stopping: AbortSignal
  }) {
    this.#records = options.records
    this.#expire = options.expire
    this.#log = options.log
    this.#stopping = options.stopping
    this.#stopping.addEventListener('abort', () => clearTimeout(this.#timer))
  }

  /** Some end may have changed: looks again. */
  changed(): void {
    this.#checking = this.#checking
      .then(() => this.#check())
      .catch((error) => {
        this.#log('error', 'expiry.failed', { error: IceboxError.from(error).message })
        this.#wake(RETRY_MS)
      })
  }

  async #check(): Promise<void> {
    if (this.#stopping.aborted) return
    const now = Date.now()
    let nearest = Number.POSITIVE_INFINITY
    for (const sandbox of await this.#records.listEverywhere('Sandbox')) {
      const { name } = sandbox.metadata
      if (this.#ending.has(name)) continue
      if (isDue(sandbox, now)) {
        this.#ending.add(name)
        void this.#end(sandbox)
      } else if (isExpiring(sandbox)) nearest = Math.min(nearest, Date.parse(sandbox.spec.expiresAt ?? '') - now)
    }
    this.#wake(nearest)
  }

  async #end(sandbox: Sandbox): Promise<void> {
    const { metadata, spec } = sandbox
    const { name, namespace: project } = metadata
    const facts = { sandbox: name, project, expiresAt: spec.expiresAt, onTimeout: spec.onTimeout }
    this.#log('info', 'sandbox.expired', facts)
    const done = () => {
      this.#ending.delete(name)
      this.changed()
    }
    try {
      await this.#expire(sandbox)
      done()
    } catch (error) {
      // Somebody was faster, with an extension, a pause or a delete: there is nothing to try again.
      if (isError(error, 'Conflict', 'NotFound')) return done()
      this.#log('error', 'expiry.failed', { ...facts, error: IceboxError.from(error).message })
      setTimeout(done, RETRY_MS).unref()
    }
  }

  #wake(milliseconds: number): void {
    clearTimeout(this.#timer)
    if (this.#stopping.aborted || milliseconds === Number.POSITIVE_INFINITY) return
    this.#timer = setTimeout(() => this.changed(), Math.min(milliseconds, LONGEST_WAIT_MS))
    this.#timer.unref()
  }
}
