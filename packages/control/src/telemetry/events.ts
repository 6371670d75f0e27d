import { IceboxError, type WireEvent } from '@icebox/model'
import type { EventFilter } from '../control.ts'
import type { Log } from '../log.ts'
import { type FileStep, readShared, readStored, removeShared, writeSteps } from './event-files.ts'
import { lineOf, ProjectEvents } from './project-events.ts'

export interface EventLimits {
  /** Projects whose events are kept. Beyond it that which has had none for longest is forgotten. */
  projects: number
  /** Bytes of all that is kept: of its lines, in memory and on disk. */
  bytes: number
  /** Of one project, at most and at least: its share is between them, and as large as those of all others. */
  projectBytes: { most: number; least: number }
  /** Events of one project. */
  projectEvents: number
  /** Characters of a reason or a message. */
  text: number
}
export const EVENT_LIMITS: EventLimits = {
  projects: 1000,
  bytes: 32 * 2 ** 20,
  projectBytes: { most: 2 * 2 ** 20, least: 16 * 2 ** 10 },
  projectEvents: 10_000,
  text: 2000,
}

/** Events that are held for who follows and has not read them yet: there may be thousands who do. */
const BATCH = 64
/** Milliseconds that events wait for company on their way to the disk. */
const DELAY_MS = 20
/**
 * Numbers left out at each start: a follower may have been told of events that a crash kept from the disk, and what comes now must
 * come after them. More than happen in the time that events wait.
 */
const GAP = 1000

export type Happening = Omit<WireEvent, 'id'>

/**
 * One event per transition of a resource, in order, on disk and to followers. Each project has its own share, so that none pushes
 * out what another has to tell. Events are written soon after what they tell: a crash may lose the last of them, which `tellMissed`
 * tells again from what the resources say.
 */
export class Events {
  readonly #directory: string
  readonly #log: Log
  readonly #limits: EventLimits
  /** By project; the one that had an event last is last. */
  readonly #kept = new Map<string, ProjectEvents>()
  readonly #followers = new Map<string | undefined, Set<() => void>>()
  #bytes = 0
  #next = 1
  #waiting = new Map<string, FileStep[]>()
  #timer: NodeJS.Timeout | undefined
  #writing: Promise<void> = Promise.resolve()

  private constructor(directory: string, log: Log, limits: EventLimits) {
    this.#directory = directory
    this.#log = log
    this.#limits = limits
  }

  /** In a directory of the data directory. A line that a crash cut is dropped. */
  static async open(directory: string, log: Log, limits: EventLimits = EVENT_LIMITS): Promise<Events> {
    const events = new Events(directory, log, limits)
    const stored = [...(await readStored(directory))].map(([project, { older, present }]) => ({
      project,
      kept: new ProjectEvents(older, present),
    }))
    const newest = ({ kept }: { kept: ProjectEvents }) => kept.newest?.id ?? 0
    for (const { project, kept } of stored.toSorted((a, b) => newest(a) - newest(b))) {
      events.#kept.set(project, kept)
      events.#bytes += kept.bytes
    }
    const shared = await readShared(directory)
    for (const event of shared) events.#keep(event)
    events.#makeRoom()
    const last = Math.max(0, ...stored.map(newest), shared.at(-1)?.id ?? 0)
    if (last > 0) events.#next = last + GAP
    if (shared.length > 0) {
      await events.#flush()
      await removeShared(directory)
    }
    return events
  }

  append(happening: Happening): void {
    const { reason, message, ...facts } = happening
    const event = {
      ...{ id: this.#next, ...facts },
      ...(reason === undefined ? {} : { reason: reason.slice(0, this.#limits.text) }),
      ...(message === undefined ? {} : { message: message.slice(0, this.#limits.text) }),
    }
    this.#next += 1
    this.#keep(event)
    this.#makeRoom()
    for (const followed of [event.project, undefined]) for (const wake of this.#followers.get(followed) ?? []) wake()
  }

  /** Those that are kept, oldest first. Without a project those of all, which is put in order anew each time. */
  list(filter: EventFilter): WireEvent[] {
    return this.#select(filter, filter.after ?? 0, Number.POSITIVE_INFINITY)
  }

  /** The first of those with a larger id. */
  #select(filter: EventFilter, after: number, most: number): WireEvent[] {
    const { project } = filter
    const of = (kept: ProjectEvents | undefined) => {
      const found: WireEvent[] = []
      for (const event of kept?.after(after) ?? []) {
        if (found.length >= most) break
        if (matches(event, filter)) found.push(event)
      }
      return found
    }
    if (project !== undefined) return of(this.#kept.get(project))
    return [...this.#kept.values()]
      .flatMap(of)
      .sort((a, b) => a.id - b.id)
      .slice(0, most)
  }

  /** Whether an event of that time would not be kept any more, so that its absence says nothing. */
  isForgotten(project: string, at: string): boolean {
    const oldest = this.#kept.get(project)?.oldest
    return oldest === undefined ? this.#kept.size >= this.#limits.projects : at < oldest.at
  }

  /**
   * The same, and then each as it happens, until the signal aborts. Who reads too slowly for what is kept of the project misses
   * some; what happens in other projects does not matter.
   */
  async *follow(filter: EventFilter, signal: AbortSignal): AsyncGenerator<WireEvent> {
    const { project } = filter
    let after = filter.after ?? 0
    while (!signal.aborted) {
      // Before the first is read: more may happen until the last is.
      const newest = this.#newestOf(project)
      const events = this.#select(filter, after, BATCH)
      for (const event of events) {
        yield event
        if (signal.aborted) return
        after = event.id
      }
      if (events.length === BATCH) continue
      after = Math.max(after, newest)
      await new Promise<void>((resolve) => {
        const followers = this.#followers.get(project) ?? new Set()
        this.#followers.set(project, followers)
        const done = () => {
          followers.delete(done)
          if (followers.size === 0 && this.#followers.get(project) === followers) this.#followers.delete(project)
          signal.removeEventListener('abort', done)
          resolve()
        }
        followers.add(done)
        signal.addEventListener('abort', done)
        if (this.#newestOf(project) > after) done()
      })
    }
  }

  #newestOf(project: string | undefined): number {
    return project === undefined ? this.#next - 1 : (this.#kept.get(project)?.newest?.id ?? 0)
  }

  async close(): Promise<void> {
    await this.#flush()
  }

  #keep(event: WireEvent): void {
    const { project } = event
    const kept = this.#kept.get(project) ?? new ProjectEvents()
    // Last of all, as that which had an event last.
    this.#kept.delete(project)
    this.#kept.set(project, kept)
    const line = lineOf(event)
    const bytes = Buffer.byteLength(line)
    if (kept.presentBytes + bytes > this.#partBytes || kept.presentCount >= this.#limits.projectEvents / 2)
      this.#turn(project, kept)
    kept.append(event, bytes)
    this.#bytes += bytes
    this.#write(project, { line })
  }

  /** Bytes of one of the two parts of a project. */
  get #partBytes(): number {
    const { bytes, projectBytes } = this.#limits
    const share = bytes / Math.max(1, this.#kept.size)
    return Math.max(projectBytes.least, Math.min(projectBytes.most, share)) / 2
  }

  /** What is too much goes: first of whom least was heard lately, then the older half of whoever has most. */
  #makeRoom(): void {
    const { projects, bytes } = this.#limits
    for (const [project, kept] of this.#kept) {
      if (this.#kept.size <= projects) break
      this.#kept.delete(project)
      this.#bytes -= kept.bytes
      this.#write(project, 'forget')
    }
    while (this.#bytes > bytes) {
      const [project, kept] = [...this.#kept].reduce((most, each) => (each[1].bytes > most[1].bytes ? each : most))
      this.#turn(project, kept)
    }
  }

  #turn(project: string, kept: ProjectEvents): void {
    const before = kept.bytes
    kept.turn()
    this.#bytes -= before - kept.bytes
    this.#write(project, 'turn')
  }

  /** What waits is never more than what is kept, also when the disk stands still. */
  #write(project: string, step: FileStep): void {
    const steps = this.#waiting.get(project) ?? []
    this.#waiting.set(project, steps)
    if (step === 'forget') steps.length = 0
    // What was written before the last turn goes with this one.
    if (step === 'turn') steps.splice(0, Math.max(0, steps.lastIndexOf('turn')))
    steps.push(step)
    this.#timer ??= setTimeout(() => this.#flush(), DELAY_MS)
  }

  #flush(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#writing = this.#writing.then(async () => {
      const waiting = this.#waiting
      this.#waiting = new Map()
      for (const [project, steps] of waiting)
        await writeSteps(this.#directory, project, steps).catch((thrown: unknown) => {
          const lost = steps.filter((step) => typeof step === 'object').length
          this.#log('error', 'events.write.failed', { lost, error: IceboxError.from(thrown).message })
        })
    })
    return this.#writing
  }
}

const matches = (event: WireEvent, { resource }: EventFilter): boolean =>
  resource === undefined || event.resource === resource
