import type { WireSandbox } from '@icebox/model'
import { hasId } from './answers.ts'
import { type Connection, route } from './connection.ts'
import type { CallOptions } from './deadline.ts'
import type { List } from './list.ts'
import { type CreateOptions, connectSandbox, createSandbox, Sandbox } from './sandbox.ts'

export interface ListOptions extends CallOptions {
  /** Only those in one of these states. */
  state?: WireSandbox['status']['state'][] | undefined
  /** Only those with all of these. */
  metadata?: Record<string, string> | undefined
}

export class Sandboxes {
  readonly #connection: Connection

  /** @internal */
  constructor(connection: Connection) {
    this.#connection = connection
  }

  /** Resolves when it runs. */
  async create(options: CreateOptions): Promise<Sandbox> {
    return createSandbox(this.#connection, options)
  }

  /** By id, name, or a unique prefix of the id. */
  async connect(ref: string, call: CallOptions = {}): Promise<Sandbox> {
    return connectSandbox(this.#connection, ref, call)
  }

  /** Newest first. */
  list(options: ListOptions = {}): List<Sandbox> {
    const { state, metadata, ...call } = options
    const query = { state, metadata: metadata === undefined ? undefined : new URLSearchParams(metadata).toString() }
    const sandbox = (resource: WireSandbox) => new Sandbox(this.#connection, resource)
    return this.#connection.list(route('sandboxes'), hasId<WireSandbox>, { ...call, query }, sandbox)
  }
}
