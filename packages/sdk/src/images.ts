import type { WireImage } from '@icebox/model'
import { hasId } from './answers.ts'
import { type Connection, route, UNTIL_SETTLED } from './connection.ts'
import type { CallOptions } from './deadline.ts'
import type { List } from './list.ts'
import { follow, type ProgressOptions } from './progress.ts'

/** Images are named by id, unique prefix, digest or reference. */
export class Images {
  readonly #connection: Connection

  /** @internal */
  constructor(connection: Connection) {
    this.#connection = connection
  }

  /** Makes it present: `python:3.12`, `oci:DIR:TAG`, `docker-archive:FILE`, `tar:FILE`, `dir:DIR`, `debian:SUITE[+PACKAGE,…][@USER]`. */
  async pull(reference: string, options: ProgressOptions = {}): Promise<WireImage> {
    return follow(this.#connection, route('images'), { reference }, hasId<WireImage>, options)
  }

  /** Newest first. */
  list(call: CallOptions = {}): List<WireImage> {
    return this.#connection.list(route('images'), hasId<WireImage>, call, (image) => image)
  }

  async get(ref: string, call: CallOptions = {}): Promise<WireImage> {
    return this.#connection.json('GET', route('images', ref), hasId<WireImage>, call)
  }

  /** `InUse` while a template, snapshot or sandbox needs it. */
  async delete(ref: string, call: CallOptions = {}): Promise<void> {
    await this.#connection.delete(route('images', ref), { ...call, headers: UNTIL_SETTLED })
  }
}
