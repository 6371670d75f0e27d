import type { WireEvent } from '@icebox/model'
import { isArrayOf, isObject, isWireError } from './answers.ts'
import { type Connection, NDJSON, route } from './connection.ts'
import type { CallOptions } from './deadline.ts'
import { IceboxError } from './error.ts'
import { objects } from './streams.ts'

export interface EventOptions extends CallOptions {
  /** After the event with this id. */
  after?: number | undefined
  /** Of this sandbox, snapshot or template alone. */
  resource?: string | undefined
}

const isEvent = (answer: unknown): answer is WireEvent =>
  isObject(answer) && typeof answer.id === 'number' && typeof answer.to === 'string'

/** Every transition of the project's sandboxes, snapshots and templates. */
export class Events {
  readonly #connection: Connection

  constructor(connection: Connection) {
    this.#connection = connection
  }

  /** Those that are kept, oldest first. */
  async list(options: EventOptions = {}): Promise<WireEvent[]> {
    const { after, resource, ...call } = options
    return this.#connection.json('GET', route('events'), isArrayOf(isEvent), { ...call, query: { after, resource } })
  }

  /** The same, and then each as it happens, until the signal or the end of the loop. */
  async *follow(options: EventOptions = {}): AsyncGenerator<WireEvent> {
    const { after, resource, ...call } = options
    const request = { ...call, query: { after, resource }, headers: { accept: NDJSON } }
    const response = await this.#connection.stream('GET', route('events'), request)
    for await (const event of objects(this.#connection, response, call)) {
      if (isWireError(event.error)) throw new IceboxError(undefined, event.error)
      if (isEvent(event)) yield event
    }
  }
}
