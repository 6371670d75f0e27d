import type { CreateApiKeyInput, NewApiKey, WireApiKey } from '@icebox/model'
import { hasId } from './answers.ts'
import { type Connection, route } from './connection.ts'
import type { CallOptions } from './deadline.ts'
import type { List } from './list.ts'

/** The API keys of projects. All calls need the installation's own key. Keys are named by id or a unique prefix of it. */
export class Keys {
  readonly #connection: Connection

  /** @internal */
  constructor(connection: Connection) {
    this.#connection = connection
  }

  /** The answer alone has the key itself. A project begins with its first key. */
  async create(options: CreateApiKeyInput & CallOptions): Promise<NewApiKey> {
    const { signal, requestTimeoutMs, ...json } = options
    return this.#connection.json('POST', route('keys'), hasId<NewApiKey>, { signal, requestTimeoutMs, json })
  }

  /** Of all projects, newest first. */
  list(call: CallOptions = {}): List<WireApiKey> {
    return this.#connection.list(route('keys'), hasId<WireApiKey>, call, (key) => key)
  }

  /** It opens nothing from here on. */
  async revoke(ref: string, call: CallOptions = {}): Promise<void> {
    await this.#connection.delete(route('keys', ref), call)
  }
}
