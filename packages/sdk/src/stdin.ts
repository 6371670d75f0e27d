import type { ExecInfo } from '@icebox/model'
import { whileAway } from './away.ts'
import { type Connection, route } from './connection.ts'
import type { CallOptions } from './deadline.ts'

/** Bytes of one request; more than that is sent in several. */
const PIECE = 256 * 1024

/**
 * Standard input of a process. Writes go one after the other, each with its offset, so that one that has to be sent again, also to
 * a server that was started anew, neither loses nor doubles bytes.
 */
export class ExecStdin {
  readonly #connection: Connection
  readonly #sandbox: string
  readonly #started: Promise<ExecInfo>
  #offset: number | undefined
  #last: Promise<void> = Promise.resolve()

  constructor(connection: Connection, sandbox: string, started: Promise<ExecInfo>) {
    this.#connection = connection
    this.#sandbox = sandbox
    this.#started = started
  }

  /** Resolves once the process's side has taken it. */
  write(data: string | Uint8Array, call: CallOptions = {}): Promise<void> {
    return this.#enqueue(typeof data === 'string' ? Buffer.from(data) : data, false, call)
  }

  /** Writes the data, if any, and then the end of file. */
  close(data: string | Uint8Array = '', call: CallOptions = {}): Promise<void> {
    return this.#enqueue(typeof data === 'string' ? Buffer.from(data) : data, true, call)
  }

  #enqueue(data: Uint8Array, close: boolean, call: CallOptions): Promise<void> {
    const turn = this.#last.then(() => this.#send(data, close, call))
    this.#last = turn.catch(() => {})
    return turn
  }

  async #send(data: Uint8Array, close: boolean, call: CallOptions): Promise<void> {
    const { id, stdinBytes } = await this.#started
    let offset = this.#offset ?? stdinBytes
    const path = route('sandboxes', this.#sandbox, 'execs', id, 'stdin')
    for (let begin = 0; begin < data.byteLength || (close && begin === 0); begin += PIECE) {
      const body = data.subarray(begin, begin + PIECE)
      const last = begin + PIECE >= data.byteLength
      const query = { offset, close: close && last ? true : undefined }
      await whileAway(() => this.#connection.send('POST', path, { ...call, query, body, idempotent: true }), call)
      offset += body.byteLength
      this.#offset = offset
    }
  }
}
