import type { WireEvent } from '@icebox/model'

/** The events of one project that are kept, oldest first, in two parts: as the present one is full, the older one goes. */
export class ProjectEvents {
  #older: WireEvent[]
  #present: WireEvent[]
  #olderBytes: number
  #presentBytes: number

  constructor(older: WireEvent[] = [], present: WireEvent[] = []) {
    this.#older = older
    this.#present = present
    this.#olderBytes = bytesOfAll(older)
    this.#presentBytes = bytesOfAll(present)
  }

  get bytes(): number {
    return this.#olderBytes + this.#presentBytes
  }

  get presentBytes(): number {
    return this.#presentBytes
  }

  get presentCount(): number {
    return this.#present.length
  }

  get newest(): WireEvent | undefined {
    return this.#present.at(-1) ?? this.#older.at(-1)
  }

  get oldest(): WireEvent | undefined {
    return this.#older[0] ?? this.#present[0]
  }

  append(event: WireEvent, bytes: number): void {
    this.#present.push(event)
    this.#presentBytes += bytes
  }

  /** The older part goes, the present one becomes it. */
  turn(): void {
    this.#older = this.#present
    this.#olderBytes = this.#presentBytes
    this.#present = []
    this.#presentBytes = 0
  }

  /** Those with a larger id. */
  *after(id: number): Generator<WireEvent> {
    for (const part of [this.#older, this.#present])
      for (let at = firstAfter(part, id); at < part.length; at++) {
        const event = part[at]
        if (event !== undefined) yield event
      }
  }
}

/** Where the first with a larger id stands. They are in order: everybody who follows asks at each event. */
function firstAfter(events: readonly WireEvent[], id: number): number {
  let [from, to] = [0, events.length]
  while (from < to) {
    const middle = (from + to) >>> 1
    if ((events[middle]?.id ?? 0) > id) to = middle
    else from = middle + 1
  }
  return from
}

export const lineOf = (event: WireEvent): string => `${JSON.stringify(event)}\n`
/** Of its line; in memory it takes some three times as much. */
const bytesOfAll = (events: readonly WireEvent[]): number =>
  events.reduce((sum, event) => sum + Buffer.byteLength(lineOf(event)), 0)
