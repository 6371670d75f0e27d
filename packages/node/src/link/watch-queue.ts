import { type FileEvent, IceboxError, ITEM_BYTES, isError, type Reservation } from '@icebox/model'
import type { PayloadReader } from './payload.ts'

/** What may wait for a consumer; beyond, it learns that some are missing. */
const MAX_EVENTS = 4096
const MAX_BYTES = 1024 * 1024
/** Longer names no kernel makes. */
const MAX_PATH = 64 * 1024
const FILE_CHANGES = ['overflow', 'create', 'write', 'remove', 'rename', 'chmod'] as const

/** Changes of files that a guest told, until they are read. What they take is of the reservation. */
export class WatchQueue {
  readonly #events: { event: FileEvent; bytes: number }[] = []
  readonly #held: Reservation
  #bytes = 0

  constructor(held: Reservation) {
    this.#held = held
  }

  get length(): number {
    return this.#events.length
  }

  /** One EVENT. Kinds that this version does not know are left out. */
  read(payload: PayloadReader): void {
    const type = FILE_CHANGES[payload.u8()]
    if (type === undefined) return
    if (type === 'overflow') {
      this.#overflow()
      return
    }
    if (payload.length > MAX_PATH) throw new IceboxError('GuestFailed', 'the guest told of a file with too long a name')
    const path = payload.text()
    // Two bytes for each character, where one of them needs so many.
    const bytes = 2 * path.length + ITEM_BYTES
    if (!this.#hasRoom(bytes)) {
      this.#overflow()
      return
    }
    this.#bytes += bytes
    this.#events.push({ event: { type, path }, bytes })
  }

  shift(): FileEvent | undefined {
    const first = this.#events.shift()
    if (first === undefined) return undefined
    this.#bytes -= first.bytes
    this.#held.resize(this.#bytes)
    return first.event
  }

  #hasRoom(bytes: number): boolean {
    if (this.#events.length >= MAX_EVENTS || this.#bytes + bytes > MAX_BYTES) return false
    try {
      this.#held.resize(this.#bytes + bytes)
      return true
    } catch (error) {
      if (isError(error, 'TooManyRequests')) return false
      throw error
    }
  }

  /** Follows on no other of its kind, so that it needs no place of its own. */
  #overflow(): void {
    if (this.#events.at(-1)?.event.type !== 'overflow') this.#events.push({ event: { type: 'overflow' }, bytes: 0 })
  }
}
