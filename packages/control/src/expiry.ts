import { IceboxError, type Sandbox } from '@icebox/model'
import type { Context } from './context.ts'

/** Longest delay that setTimeout takes. */
const LONGEST_WAIT_MS = 2 ** 31 - 1
const RETRY_MS = 5_000

/**
 * Deletes sandboxes when their time has come. The time stands in the resource, so that it survives a restart and an
 * extension needs no second write; here is only one timer, for the nearest.
 */
export class Expiry {
  readonly #context: Context
  readonly #delete: (sandbox: Sandbox) => Promise<unknown>
  #timer: NodeJS.Timeout | undefined
  #checking: Promise<void> = Promise.resolve()

  constructor(context: Context, remove: (sandbox: Sandbox) => Promise<unknown>) {
    this.#context = context
    this.#delete = remove
    context.closing.addEventListener('abort', () => clearTimeout(this.#timer))
  }

  /** Some expiry may have changed: looks again. */
  changed(): void {
    this.#checking = this.#checking
      .then(() => this.#check())
      .catch((error) => {
        this.#context.log('error', 'expiry.failed', { error: IceboxError.from(error).message })
        this.#wake(RETRY_MS)
      })
  }

  async #check(): Promise<void> {
    if (this.#context.closing.aborted) return
    const now = Date.now()
    let nearest = Number.POSITIVE_INFINITY
    for (const sandbox of await this.#context.records.listEverywhere('Sandbox')) {
      const { metadata, spec, status } = sandbox
      if (spec.expiresAt === undefined || status.state === 'deleting') continue
      const left = Date.parse(spec.expiresAt) - now
      if (left > 0) {
        nearest = Math.min(nearest, left)
        continue
      }
      this.#context.log('info', 'sandbox.expired', { sandbox: metadata.name, expiresAt: spec.expiresAt })
      this.#delete(sandbox).catch((error) => {
        this.#context.log('error', 'expiry.delete.failed', {
          sandbox: metadata.name,
          error: IceboxError.from(error).message,
        })
        this.#wake(RETRY_MS)
      })
    }
    this.#wake(nearest)
  }

  #wake(milliseconds: number): void {
    clearTimeout(this.#timer)
    if (this.#context.closing.aborted || milliseconds === Number.POSITIVE_INFINITY) return
    this.#timer = setTimeout(() => this.changed(), Math.min(milliseconds, LONGEST_WAIT_MS))
    this.#timer.unref()
  }
}
