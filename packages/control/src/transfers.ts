import { FairTurns, IceboxError } from '@icebox/model'
import type { Limits } from './limits.ts'

/**
 * Exports, imports and rereads of snapshots: so many of a project and of all may be asked for, and of those so many at once use
 * the disk, projects taking turns. A project's first is let in however many others have: nobody is kept out by the others.
 */
export class Transfers {
  readonly #limits: Pick<Limits, 'transfers' | 'transfersInAll'>
  readonly #turns: FairTurns
  readonly #open = new Map<string, number>()
  #all = 0

  constructor(limits: Pick<Limits, 'transfers' | 'transfersInAll' | 'transfersAtOnce'>) {
    this.#limits = limits
    this.#turns = new FairTurns('exports, imports and verifications', { inAll: limits.transfersAtOnce })
  }

  /** Gives what is called once it is over, its upload or download included. Throws `TooManyRequests`. */
  enter(project: string): () => void {
    const { transfers, transfersInAll } = this.#limits
    const open = this.#open.get(project) ?? 0
    if (open >= transfers)
      throw refusal(
        `project ${project} has ${open} exports, imports and verifications under way, the limit`,
        'transfers',
      )
    if (open > 0 && this.#all >= transfersInAll)
      throw refusal(`${this.#all} exports, imports and verifications are under way, the limit`, 'transfersInAll')
    this.#open.set(project, open + 1)
    this.#all += 1
    let left = false
    return () => {
      if (left) return
      left = true
      this.#all -= 1
      const rest = (this.#open.get(project) ?? 1) - 1
      if (rest === 0) this.#open.delete(project)
      else this.#open.set(project, rest)
    }
  }

  /** Does what uses the disk, in its turn. Throws the signal's reason when it aborts before. */
  inTurn<R>(project: string, work: () => Promise<R>, signal: AbortSignal): Promise<R> {
    return this.#turns.run(project, work, signal)
  }
}

const refusal = (message: string, limit: string): IceboxError =>
  new IceboxError('TooManyRequests', message, {
    remedy: 'Wait until one of them has ended, then try again.',
    details: { limit, retryAfterSeconds: 1 },
  })
