import { IceboxError } from '@icebox/model'
import type { Accepted } from './control.ts'
import { until } from './until.ts'

interface Exclusive {
  verb: string
  stopping: AbortController
  accepted: Promise<Accepted<unknown>>
}

/**
 * One lifecycle operation per resource at a time. Equal requests join the one under way, conflicting ones are refused;
 * passing ones (snapshot, fork), which leave the state as it was, queue behind each other and are waited for.
 *
 * This orders work within one process. What makes a crash safe is the intent in the store.
 */
export class Operations {
  readonly #exclusive = new Map<string, Exclusive>()
  readonly #passing = new Map<string, Promise<unknown>>()
  readonly #afterwards = new Set<Promise<void>>()

  /** What is under way for this resource. */
  verb(id: string): string | undefined {
    return this.#exclusive.get(id)?.verb
  }

  /** Asks what is under way for this resource to be given up. */
  stop(id: string, reason: IceboxError): void {
    this.#exclusive.get(id)?.stopping.abort(reason)
  }

  /** Resolves when what is under way for this resource has ended, well or not. Rejects when the signal aborts before. */
  async ended(id: string, signal?: AbortSignal): Promise<void> {
    const ended = this.#exclusive
      .get(id)
      ?.accepted.then(({ settled }) => settled)
      .catch(() => undefined)
    await (ended === undefined || signal === undefined ? ended : until(ended, signal))
  }

  isBusy(id: string): boolean {
    return this.#exclusive.has(id) || this.#passing.has(id)
  }

  /** Work that follows from what is settled already and that only `idle` waits for. It tells its failures itself. */
  afterwards(work: Promise<void>): void {
    this.#afterwards.add(work)
    const done = () => this.#afterwards.delete(work)
    work.then(done, done)
  }

  /** Resolves when nothing is under way any more for any resource. Failures are their callers' matter. */
  async idle(): Promise<void> {
    while (this.#exclusive.size + this.#passing.size + this.#afterwards.size > 0) {
      await Promise.allSettled([
        ...this.#afterwards,
        ...[...this.#exclusive.values()].map(async ({ accepted }) => (await accepted).settled),
        ...this.#passing.values(),
      ])
    }
  }

  /**
   * Begins an operation that changes the state of the resource, or joins the equal one. `begin` writes the intent; its signal
   * aborts when the operation is to be given up, which only long ones heed.
   * Throws `Conflict` when another one is under way.
   */
  async exclusive<R>(
    id: string,
    verb: string,
    begin: (stopping: AbortSignal) => Promise<Accepted<R>>,
  ): Promise<Accepted<R>> {
    const current = this.#exclusive.get(id)
    if (current !== undefined) {
      // The map is keyed by id and verb together: an operation of one verb on one resource has one result type.
      if (current.verb === verb) return current.accepted as Promise<Accepted<R>>
      throw new IceboxError('Conflict', `cannot ${verb} ${id}: ${current.verb} is under way`)
    }
    const stopping = new AbortController()
    const accepted = this.#afterPassing(id).then(() => begin(stopping.signal))
    this.#exclusive.set(id, { verb, accepted, stopping })
    const release = () => this.#exclusive.delete(id)
    accepted.then(({ settled }) => settled.then(release, release), release)
    return accepted
  }

  /** The same, but waits for whatever is under way instead of refusing: for a delete, which always wins in the end. */
  async exclusiveInTurn<R>(
    id: string,
    verb: string,
    begin: (stopping: AbortSignal) => Promise<Accepted<R>>,
  ): Promise<Accepted<R>> {
    for (;;) {
      const current = this.#exclusive.get(id)
      if (current === undefined || current.verb === verb) return this.exclusive(id, verb, begin)
      await current.accepted.then(({ settled }) => settled).catch(() => undefined)
      // The holder releases in a reaction to the same promise: let it run before looking again.
      await Promise.resolve()
    }
  }

  /** Runs work that leaves the state as it was. Throws `Conflict` when an operation that changes it is under way. */
  async passing<R>(id: string, verb: string, work: () => Promise<R>): Promise<R> {
    const current = this.#exclusive.get(id)
    if (current !== undefined) throw new IceboxError('Conflict', `cannot ${verb} ${id}: ${current.verb} is under way`)
    const mine = this.#afterPassing(id).then(work)
    const tail = mine.catch(() => undefined)
    this.#passing.set(id, tail)
    void tail.then(() => {
      if (this.#passing.get(id) === tail) this.#passing.delete(id)
    })
    return mine
  }

  async #afterPassing(id: string): Promise<void> {
    await this.#passing.get(id)
  }
}
