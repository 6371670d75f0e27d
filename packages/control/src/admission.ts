import { IceboxError, isLive } from '@icebox/model'
import type { SandboxSummary } from './cache/summary.ts'
import type { Accepted } from './control.ts'
import type { Limits } from './limits.ts'
import { Starts, type Turn } from './starts.ts'

/** Ids by project. */
class Population {
  readonly #projects = new Map<string, Set<string>>()

  of(project: string): ReadonlySet<string> {
    return this.#projects.get(project) ?? new Set()
  }

  put(project: string, id: string): void {
    const ids = this.#projects.get(project) ?? new Set()
    this.#projects.set(project, ids.add(id))
  }

  drop(project: string, id: string): void {
    this.#projects.get(project)?.delete(id)
  }
}

/**
 * Says whether one more sandbox may be started, before anything of it is written. What is refused has left nothing. Counts are
 * kept in memory, from what is written: `note` has to be told of every write.
 */
export class Admission {
  readonly limits: Limits
  readonly #starts: Starts
  /** Those that have a machine or are about to, as it is written. */
  readonly #live = new Population()
  /** Those about to be written. */
  readonly #expected = new Population()

  constructor(limits: Limits, stopping: AbortSignal) {
    this.limits = limits
    this.#starts = new Starts(limits, stopping)
  }

  note({ namespace, name, state }: Pick<SandboxSummary, 'namespace' | 'name' | 'state'>, gone: boolean): void {
    if (!gone && isLive(state)) this.#live.put(namespace, name)
    else this.#live.drop(namespace, name)
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
            this.#expected.drop(project, id)
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
    for (const id of ids) this.#expected.put(project, id)
    try {
      return await work()
    } finally {
      for (const id of ids) this.#expected.drop(project, id)
    }
  }

  #requirePlaces(project: string, ids: readonly string[]): void {
    const taken = new Set([...this.#live.of(project), ...this.#expected.of(project)])
    const present = taken.size
    for (const id of ids) taken.add(id)
    if (taken.size <= this.limits.sandboxes) return
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
