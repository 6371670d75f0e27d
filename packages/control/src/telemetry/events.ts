import { type FileHandle, open, readFile, rename, stat, truncate } from 'node:fs/promises'
import { join } from 'node:path'
import { IceboxError, WireEvent } from '@icebox/model'
import type { EventFilter } from '../control.ts'
import type { Log } from '../log.ts'

/** Bytes of a file before a new one is begun. One older file is kept. */
const FILE_BYTES = 16 * 2 ** 20
/** Events kept in memory for those who follow. */
const KEPT = 10_000
/** Milliseconds that events wait for company on their way to the disk. */
const DELAY_MS = 20
/** Milliseconds after which what could not be written is tried again. */
const RETRY_MS = 1000
/**
 * Numbers left out at each start: a follower may have been told of events that a crash kept from the disk, and what comes now must
 * come after them. More than happen in the time that events wait.
 */
const GAP = 1000
const PRESENT = 'events.jsonl'
const OLDER = 'events.1.jsonl'

export type Happening = Omit<WireEvent, 'id'>

/**
 * One event per transition of a resource, in order, on disk and to followers. Events are written soon after what they tell:
 * a crash may lose the last of them, which `tellMissed` tells again from what the resources say.
 */
export class Events {
  readonly #directory: string
  readonly #log: Log
  readonly #kept: WireEvent[]
  readonly #followers = new Set<() => void>()
  #file: FileHandle
  #bytes: number
  #next: number
  #waiting: WireEvent[] = []
  /** It was told to the log that nothing can be written. */
  #failing = false
  #timer: NodeJS.Timeout | undefined
  #writing: Promise<void> = Promise.resolve()

  private constructor(directory: string, log: Log, file: FileHandle, bytes: number, kept: WireEvent[]) {
    this.#directory = directory
    this.#log = log
    this.#file = file
    this.#bytes = bytes
    this.#kept = kept.slice(-KEPT)
    const last = kept.at(-1)?.id
    this.#next = last === undefined ? 1 : last + GAP
  }

  /** In a directory of the data directory. A line that a crash cut is dropped. */
  static async open(directory: string, log: Log): Promise<Events> {
    const path = join(directory, PRESENT)
    const older = await linesOf(join(directory, OLDER))
    const present = await linesOf(path)
    if (present.cutAt !== undefined) await truncate(path, present.cutAt)
    const file = await open(path, 'a', 0o600)
    const { size } = await file.stat()
    return new Events(directory, log, file, size, [...older.events, ...present.events])
  }

  append(happening: Happening): void {
    const event = { id: this.#next, ...happening }
    this.#next += 1
    this.#kept.push(event)
    if (this.#kept.length > 2 * KEPT) this.#kept.splice(0, this.#kept.length - KEPT)
    this.#waiting.push(event)
    this.#timer ??= setTimeout(() => this.#flush(), DELAY_MS)
    for (const wake of this.#followers) wake()
  }

  /** Those kept in memory, oldest first. */
  list(filter: EventFilter): WireEvent[] {
    const found: WireEvent[] = []
    for (let at = this.#firstAfter(filter.after ?? 0); at < this.#kept.length; at++) {
      const event = this.#kept[at]
      if (event !== undefined && matches(event, filter)) found.push(event)
    }
    return found
  }

  /** Where the first with a larger id stands. They are in order: everybody who follows asks at each event. */
  #firstAfter(id: number): number {
    let [from, to] = [0, this.#kept.length]
    while (from < to) {
      const middle = (from + to) >>> 1
      if ((this.#kept[middle]?.id ?? 0) > id) to = middle
      else from = middle + 1
    }
    return from
  }

  /** The same, and then each as it happens, until the signal aborts. Who reads too slowly for what is kept misses some. */
  async *follow(filter: EventFilter, signal: AbortSignal): AsyncGenerator<WireEvent> {
    let after = filter.after ?? 0
    while (!signal.aborted) {
      // Before the first is read: more may happen until the last is.
      const newest = this.#next - 1
      for (const event of this.list({ ...filter, after })) {
        yield event
        if (signal.aborted) return
      }
      after = Math.max(after, newest)
      await new Promise<void>((resolve) => {
        const done = () => {
          this.#followers.delete(done)
          signal.removeEventListener('abort', done)
          resolve()
        }
        this.#followers.add(done)
        signal.addEventListener('abort', done)
        if (this.#next - 1 > after) done()
      })
    }
  }

  async close(): Promise<void> {
    await this.#flush()
    clearTimeout(this.#timer)
    await this.#file.close()
  }

  #flush(): Promise<void> {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#writing = this.#writing.then(async () => {
      const events = this.#waiting
      this.#waiting = []
      if (events.length > 0) await this.#write(events).catch((thrown) => this.#writeLater(events, thrown))
    })
    return this.#writing
  }

  /** As on a full disk. As many wait as are kept in memory; what is written of them is taken back, which needs no room. */
  async #writeLater(events: WireEvent[], thrown: unknown): Promise<void> {
    const waiting = [...events, ...this.#waiting]
    this.#waiting = waiting.slice(-KEPT)
    const lost = waiting.length - this.#waiting.length
    const error = IceboxError.from(thrown).message
    if (!this.#failing || lost > 0) this.#log('error', 'events.write.failed', { lost, error })
    this.#failing = true
    await this.#file.truncate(this.#bytes).catch(() => undefined)
    this.#timer ??= setTimeout(() => this.#flush(), RETRY_MS).unref()
  }

  async #write(events: WireEvent[]): Promise<void> {
    const bytes = Buffer.from(events.map((event) => `${JSON.stringify(event)}\n`).join(''))
    if (this.#bytes > 0 && this.#bytes + bytes.length > FILE_BYTES) {
      await this.#file.close()
      await rename(join(this.#directory, PRESENT), join(this.#directory, OLDER))
      this.#file = await open(join(this.#directory, PRESENT), 'a', 0o600)
      this.#bytes = 0
    }
    await this.#file.appendFile(bytes)
    this.#bytes += bytes.length
    this.#failing = false
  }
}

const matches = (event: WireEvent, { project, resource }: EventFilter): boolean =>
  (project === undefined || event.project === project) && (resource === undefined || event.resource === resource)

/** `cutAt`: the offset of a last line that is not whole. */
async function linesOf(file: string): Promise<{ events: WireEvent[]; cutAt?: number }> {
  if ((await stat(file).catch(() => undefined)) === undefined) return { events: [] }
  const text = await readFile(file, 'utf8')
  const whole = text.slice(0, text.lastIndexOf('\n') + 1)
  const events = whole
    .split('\n')
    .filter((line) => line !== '')
    .flatMap((line) => {
      const parsed = WireEvent.safeParse(parseJson(line))
      return parsed.success ? [parsed.data] : []
    })
  return whole.length === text.length ? { events } : { events, cutAt: Buffer.byteLength(whole) }
}

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line)
  } catch {
    return undefined
  }
}
