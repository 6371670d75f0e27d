import { Readable } from 'node:stream'
import type { ImportImageInput, WireImage } from '@icebox/model'
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

  /**
   * Makes it present: `python:3.12`; with the installation's own key also `debian:SUITE[+PACKAGE,…][@USER]` and, of files of the server's
   * machine, `oci:DIR:TAG`, `docker-archive:FILE`, `tar:FILE`, `dir:DIR`. Files of this machine are for `import`.
   */
  async pull(reference: string, options: ProgressOptions = {}): Promise<WireImage> {
    return follow(this.#connection, route('images'), { reference }, hasId<WireImage>, options)
  }

  /**
   * Makes one of a tar, compressed or not: of a root file system, an OCI image layout or what `docker save` wrote. It is known as
   * `upload:` and its label.
   */
  async import(
    content: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    options: ImportImageInput & CallOptions = {},
  ): Promise<WireImage> {
    const { kind, name, label, ...call } = options
    const body = content instanceof Readable ? content : Readable.from(content, { objectMode: false })
    const path = route('images', 'import')
    const headers = { 'content-type': 'application/x-tar' }
    return this.#connection.json('POST', path, hasId<WireImage>, {
      ...call,
      query: { kind, name, label },
      headers,
      body,
    })
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
