import { IceboxError } from '@icebox/model'
import type { Limits } from './limits.ts'

/** The right to begin a machine. Ending it again does nothing. */
export interface Turn {
  end(): void
  /** Gives the turn up for the time of the work, which begins no machine, and waits for another one after it. */
  aside<R>(work: () => Promise<R>): Promise<R>
}

interface Waiting {
  start: () => void
  refuse: (error: IceboxError) => void
  timer?: NodeJS.Timeout
}

/** Of one project. */
interface Lane {
  running: number
  /** In the order they came. */
  waiting: Set<Waiting>
}

/**
 * Starts of machines that are under way, so many at once of one project and of all, and those that wait for their turn. Projects
 * take turns; those of one project come in the order they came. One that floods waits behind itself alone.
 */
export class Starts {
  readonly #limits: Pick<Limits, 'starts' | 'projectStarts' | 'queue' | 'queueSeconds'>
  #running = 0
  /** Of projects that have any running or waiting; the one whose turn it is next comes first. */
  readonly #lanes = new Map<string, Lane>()

  constructor(limits: Pick<Limits, 'starts' | 'projectStarts' | 'queue' | 'queueSeconds'>, stopping: AbortSignal) {
    this.#limits = limits
    stopping.addEventListener('abort', () => {
      for (const { waiting } of this.#lanes.values())
        for (const { refuse } of waiting) refuse(new IceboxError('Unavailable', 'the server is shutting down'))
    })
  }

  /** Throws `TooManyRequests` when too many of the project wait already, or when the turn has not come in time. */
  turn(project: string): Promise<Turn> {
    const { queue, queueSeconds } = this.#limits
    const waiting = this.#lanes.get(project)?.waiting.size ?? 0
    if (!this.#mayBegin(project) && waiting >= queue)
      throw this.#overloaded(`${waiting} of project ${project} wait to be started already, the limit`)
    return this.#turn(project, queueSeconds)
  }

  /** For what was admitted before: waits as long as it takes. */
  patientTurn(project: string): Promise<Turn> {
    return this.#turn(project, undefined)
  }

  #mayBegin(project: string): boolean {
    const { starts, projectStarts } = this.#limits
    return this.#running < starts && (this.#lanes.get(project)?.running ?? 0) < projectStarts
  }

  #turn(project: string, seconds: number | undefined): Promise<Turn> {
    if (this.#mayBegin(project)) return Promise.resolve(this.#begin(project))
    const lane = this.#lane(project)
    const { promise, resolve, reject } = Promise.withResolvers<Turn>()
    const waiting: Waiting = {
      start: () => {
        leave()
        resolve(this.#begin(project))
      },
      refuse: (error) => {
        leave()
        reject(error)
      },
    }
    const leave = () => {
      clearTimeout(waiting.timer)
      lane.waiting.delete(waiting)
      this.#leave(project)
    }
    if (seconds !== undefined)
      waiting.timer = setTimeout(
        () => waiting.refuse(this.#overloaded(`its turn has not come in ${seconds} s`)),
        seconds * 1000,
      )
    lane.waiting.add(waiting)
    return promise
  }

  #overloaded(why: string): IceboxError {
    return new IceboxError('TooManyRequests', `too much is being started at once: ${why}`, {
      details: { retryAfterSeconds: Math.max(1, Math.ceil(this.#limits.queueSeconds)) },
    })
  }

  #lane(project: string): Lane {
    const known = this.#lanes.get(project)
    if (known !== undefined) return known
    const lane: Lane = { running: 0, waiting: new Set() }
    this.#lanes.set(project, lane)
    return lane
  }

  /** Its next turn comes after those of all others. */
  #toTheEnd(project: string): Lane {
    const lane = this.#lane(project)
    this.#lanes.delete(project)
    this.#lanes.set(project, lane)
    return lane
  }

  #leave(project: string): void {
    const lane = this.#lanes.get(project)
    if (lane !== undefined && lane.running === 0 && lane.waiting.size === 0) this.#lanes.delete(project)
  }

  #begin(project: string): Turn {
    this.#running += 1
    this.#toTheEnd(project).running += 1
    let release: (() => void) | undefined = () => {
      this.#running -= 1
      this.#toTheEnd(project).running -= 1
      this.#leave(project)
      this.#next()
    }
    const end = () => {
      release?.()
      release = undefined
    }
    return {
      end,
      aside: async (work) => {
        end()
        const result = await work()
        const another = await this.patientTurn(project)
        release = another.end
        return result
      },
    }
  }

  /** Begins what may begin: one of each project in turn. */
  #next(): void {
    for (const [project, { waiting }] of [...this.#lanes]) {
      const [first] = waiting
      if (first !== undefined && this.#mayBegin(project)) first.start()
    }
  }
}
