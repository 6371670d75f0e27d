import type { BuildTemplate, WireTemplate } from '@icebox/model'
import { hasId } from './answers.ts'
import { type Connection, route, UNTIL_SETTLED } from './connection.ts'
import type { CallOptions } from './deadline.ts'
import type { List } from './list.ts'
import { follow, type ProgressOptions } from './progress.ts'

export type BuildOptions = Pick<BuildTemplate, 'name' | 'image'> &
  Partial<Pick<BuildTemplate, 'size' | 'env' | 'startCommand' | 'readyCommand' | 'public' | 'keepSnapshots'>> &
  ProgressOptions

/** Templates are named by their name. */
export class Templates {
  readonly #connection: Connection

  /** @internal */
  constructor(connection: Connection) {
    this.#connection = connection
  }

  /** Boots the image once, waits until it is ready and takes its snapshot. Resolves when sandboxes can be made from it. */
  async build(options: BuildOptions): Promise<WireTemplate> {
    const { signal, requestTimeoutMs, onProgress, ...json } = options
    const call = { signal, requestTimeoutMs, onProgress }
    return follow(this.#connection, route('templates'), json, hasId<WireTemplate>, call)
  }

  /** Newest first. */
  list(call: CallOptions = {}): List<WireTemplate> {
    return this.#connection.list(route('templates'), hasId<WireTemplate>, call, (template) => template)
  }

  async get(name: string, call: CallOptions = {}): Promise<WireTemplate> {
    return this.#connection.json('GET', route('templates', name), hasId<WireTemplate>, call)
  }

  async delete(name: string, call: CallOptions = {}): Promise<void> {
    await this.#connection.delete(route('templates', name), { ...call, headers: UNTIL_SETTLED })
  }
}
