import { Readable } from 'node:stream'
import type { SnapshotFault, WireSnapshot } from '@icebox/model'
import { hasId, isObject } from './answers.ts'
import { type Connection, route, UNTIL_SETTLED } from './connection.ts'
import type { CallOptions } from './deadline.ts'
import type { List } from './list.ts'
import { bytes } from './streams.ts'

export interface SnapshotListOptions extends CallOptions {
  /** Only those of this sandbox: id, name or unique prefix. */
  sandbox?: string | undefined
  name?: string | undefined
  state?: WireSnapshot['status']['state'][] | undefined
  /** Also those that belong to a template, a fork or a paused sandbox. */
  hidden?: boolean | undefined
}

/** Snapshots are named by id, name, or a unique prefix of the id. */
export class Snapshots {
  readonly #connection: Connection

  /** @internal */
  constructor(connection: Connection) {
    this.#connection = connection
  }

  /** Newest first. */
  list(options: SnapshotListOptions = {}): List<WireSnapshot> {
    const { sandbox, name, state, hidden, ...call } = options
    const query = { sandboxId: sandbox, name, state, hidden }
    return this.#connection.list(route('snapshots'), hasId<WireSnapshot>, { ...call, query }, (snapshot) => snapshot)
  }

  async get(ref: string, call: CallOptions = {}): Promise<WireSnapshot> {
    return this.#connection.json('GET', route('snapshots', ref), hasId<WireSnapshot>, call)
  }

  async delete(ref: string, call: CallOptions = {}): Promise<void> {
    await this.#connection.delete(route('snapshots', ref), { ...call, headers: UNTIL_SETTLED })
  }

  /** Rereads every byte. Empty: all is well. */
  async verify(ref: string, call: CallOptions = {}): Promise<SnapshotFault[]> {
    const hasFaults = (answer: unknown): answer is { faults: SnapshotFault[] } =>
      isObject(answer) && Array.isArray(answer.faults)
    const options = { ...call, idempotent: true }
    return (await this.#connection.json('POST', route('snapshots', ref, 'verify'), hasFaults, options)).faults
  }

  /** A tar with everything that is needed to restore it elsewhere, its image included. */
  async export(ref: string, call: CallOptions = {}): Promise<AsyncIterable<Uint8Array>> {
    const response = await this.#connection.stream('POST', route('snapshots', ref, 'export'), call)
    return bytes(this.#connection, response, call)
  }

  /** From such a tar. */
  async import(
    content: AsyncIterable<Uint8Array>,
    options: CallOptions & { name?: string | undefined } = {},
  ): Promise<WireSnapshot> {
    const { name, ...call } = options
    const body = content instanceof Readable ? content : Readable.from(content, { objectMode: false })
    const path = route('snapshots', 'import')
    const headers = { 'content-type': 'application/x-tar' }
    return this.#connection.json('POST', path, hasId<WireSnapshot>, { ...call, query: { name }, headers, body })
  }
}
