import { Duplex } from 'node:stream'
import type { GuestConnection } from '@icebox/model'

/**
 * A connection into a guest as Node's HTTP client wants one: what is not read is not asked of the guest, what the guest does not
 * take is not asked of the writer. Either half ends on its own.
 */
export class GuestSocket extends Duplex {
  readonly #connection: GuestConnection
  readonly #input: AsyncIterator<Uint8Array>
  #idle: NodeJS.Timeout | undefined

  constructor(connection: GuestConnection) {
    super({ allowHalfOpen: true })
    this.#connection = connection
    this.#input = connection.readable[Symbol.asyncIterator]()
  }

  /** Ends by itself unless it is used again in time, milliseconds. */
  rest(milliseconds: number): void {
    this.#idle = setTimeout(() => this.destroy(), milliseconds)
    this.#idle.unref()
  }
  wake(): void {
    clearTimeout(this.#idle)
  }

  override _read(): void {
    this.#input.next().then(
      ({ done, value }) => this.push(done === true ? null : value),
      (error) => this.destroy(error),
    )
  }

  override _write(chunk: Uint8Array, _encoding: BufferEncoding, done: (error?: Error) => void): void {
    this.#connection.write(chunk).then(() => done(), done)
  }

  // Heads and first bytes leave together: each write is a frame on the link.
  override _writev(chunks: { chunk: Uint8Array }[], done: (error?: Error) => void): void {
    this.#connection.write(Buffer.concat(chunks.map(({ chunk }) => chunk))).then(() => done(), done)
  }

  override _final(done: (error?: Error) => void): void {
    this.#connection.end().then(() => done(), done)
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.wake()
    this.#connection.destroy()
    done(error)
  }

  // What the client sets on sockets of the system, which means nothing here.
  setNoDelay(): this {
    return this
  }
  setKeepAlive(): this {
    return this
  }
  setTimeout(): this {
    return this
  }
  ref(): this {
    return this
  }
  unref(): this {
    return this
  }
}
