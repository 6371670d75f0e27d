import { IceboxError, isLive, SANDBOX_STATES } from '@icebox/model'
import type { OfProject } from './cache/collection.ts'
import type { Accepted } from './control.ts'
import type { Limits } from './limits.ts'
import { Starts, type Turn } from './starts.ts'

/** In these a sandbox has a machine or is about to. */
const LIVE = SANDBOX_STATES.filter(isLive)

/**
 * Says whether one more sandbox may be started, before anything of it is written. What is refused has left nothing.
 */
export class Admission {
  readonly limits: Limits
  readonly #starts: Starts
  readonly #sandboxesOf: (project: string) => OfProject<'Sandbox'>
  /** Those about to be written, by project. */
  readonly #expected = new Map<string, Set<string>>()

  /** `sandboxesOf`: as they are written. */
  constructor(limits: Limits, sandboxesOf: (project: string) => OfProject<'Sandbox'>, stopping: AbortSignal) {
    this.limits = limits
    this.#sandboxesOf = sandboxesOf
    this.#starts = new Starts(limits, stopping)
  }

  /**
   * Begins an operation that starts a machine for this sandbox, in its turn, which lasts until it has settled.
   * Throws `TooManyRequests`; then `begin` was not called.
   */
  async start<R>(project: string, id: string, begin: (turn: Turn) => Promise<Accepted<R>>): Promise<Accepted<R>> {
    this.#requirePlaces(project, [id])
    const turn = await this.#starts.turn(project)
    try {
      // Others came while it waited.
      return await this.#expecting(project, [id], () => inTurn(turn, begin))
    } catch (error) {
      turn.end()
      throw error
    }
  }

  /**
   * Begins one operation for each of the sandboxes after the work that they stand on, which has a turn of its own; once it is done
   * none is refused any more. Throws `TooManyRequests`; then `work` was not called.
   */
  async startAfter<R>(
    project: string,
    ids: readonly string[],
    work: () => Promise<void>,
    begin: (id: string, turn: Turn) => Promise<Accepted<R>>,
  ): Promise<PromiseSettledResult<R>[]> {
    this.#requirePlaces(project, ids)
    const turn = await this.#starts.turn(project)
    try {
      return await this.#expecting(project, ids, async () => {
        try {
          await work()
        } finally {
          turn.end()
        }
        const one = async (id: string): Promise<R> => {
          const own = await this.#starts.patientTurn(project)
          try {
            return await (await begin(id, own)).settled
          } finally {
            own.end()
            this.#forget(project, [id])
          }
        }
        return Promise.allSettled(ids.map(one))
      })
    } finally {
      turn.end()
    }
  }

  async #expecting<R>(project: string, ids: readonly string[], work: () => Promise<R>): Promise<R> {
    this.#requirePlaces(project, ids)
    const expected = this.#expected.get(project) ?? new Set()
    this.#expected.set(project, expected)
    for (const id of ids) expected.add(id)
    try {
      return await work()
    } finally {
      this.#forget(project, ids)
    }
  }

  #forget(project: string, ids: readonly string[]): void {
    const expected = this.#expected.get(project)
    for (const id of ids) expected?.delete(id)
    if (expected?.size === 0) this.#expected.delete(project)
  }

  #requirePlaces(project: string, ids: readonly string[]): void {
    const sandboxes = this.#sandboxesOf(project)
    const live = LIVE.reduce((sum, state) => sum + sandboxes.where('state', state).size, 0)
    const isNotLive = (id: string) => !LIVE.some((state) => sandboxes.first('name', id)?.state === state)
    const expected = new Set([...(this.#expected.get(project) ?? [])].filter(isNotLive))
    const present = live + expected.size
    for (const id of ids.filter(isNotLive)) expected.add(id)
    if (live + expected.size <= this.limits.sandboxes) return
    const more = ids.length === 1 ? 'another one' : `${ids.length} more`
    throw new IceboxError(
      'TooManyRequests',
      `project ${project} has ${present} sandboxes that run or are being started, and may have ${this.limits.sandboxes}: ${more} cannot be started`,
      {
        remedy: 'Pause or delete sandboxes of the project, or have its limit raised.',
        details: { limit: 'sandboxes' },
      },
    )
  }
}

/** The turn ends when the operation has. */
async function inTurn<R>(turn: Turn, begin: (turn: Turn) => Promise<Accepted<R>>): Promise<Accepted<R>> {
  const accepted = await begin(turn)
  accepted.settled.then(turn.end, turn.end)
  return accepted
}
