import { Agent } from 'node:http'
import { type Duplex, PassThrough } from 'node:stream'
import { type Guest, IceboxError } from '@icebox/model'
import { tooLate } from './exchange.ts'
import { GuestSocket } from './guest-socket.ts'

/** Milliseconds a connection waits for another request: less than the servers inside allow. */
const IDLE = 1_000
/** Connections that wait for another request, for each port. */
const MOST_IDLE = 32
/** Milliseconds until a port has answered a dial. */
const DIAL = 30_000

/** Opens a connection to a port of a guest. Throws `NotFound` with details.port when nothing listens. */
export async function dial(guest: Guest, port: number, signal?: AbortSignal): Promise<GuestSocket> {
  const ended = new AbortController()
  const stop = () => ended.abort(signal?.reason)
  const late = setTimeout(() => ended.abort(tooLate('The port did not take the connection', DIAL)), DIAL)
  signal?.addEventListener('abort', stop, { once: true })
  if (signal?.aborted) stop()
  try {
    return new GuestSocket(await guest.dial(port, ended.signal))
  } finally {
    clearTimeout(late)
    signal?.removeEventListener('abort', stop)
  }
}

/** Connections to one port of one run. They end with the run, for then the link to the guest ends. */
class PortAgent extends Agent {
  readonly #guest: Guest
  readonly #port: number
  readonly #onEmpty: () => void
  #connections = 0

  constructor(guest: Guest, port: number, onEmpty: () => void) {
    super({ keepAlive: true, maxFreeSockets: MOST_IDLE })
    this.#guest = guest
    this.#port = port
    this.#onEmpty = onEmpty
  }

  override createConnection(_options: unknown, done?: (error: Error | null, socket: Duplex) => void): undefined {
    this.#connections++
    const over = () => {
      if (--this.#connections === 0) this.#onEmpty()
    }
    dial(this.#guest, this.#port).then(
      (socket) => {
        socket.once('close', over)
        done?.(null, socket)
      },
      (thrown) => {
        over()
        // Where there is an error nobody looks at the socket.
        done?.(IceboxError.from(thrown), new PassThrough())
      },
    )
  }

  override keepSocketAlive(socket: Duplex): boolean {
    if (!(socket instanceof GuestSocket)) return false
    socket.rest(IDLE)
    return true
  }

  override reuseSocket(socket: Duplex, request: Parameters<Agent['reuseSocket']>[1]): void {
    if (socket instanceof GuestSocket) socket.wake()
    super.reuseSocket(socket, request)
  }
}

/** Connections that can serve another request, by run and port: a resumed sandbox is another run and never gets those of the one before. */
export class Pool {
  readonly #agents = new Map<string, PortAgent>()

  agent(execution: string, guest: Guest, port: number): Agent {
    const name = `${execution}:${port}`
    const present = this.#agents.get(name)
    if (present !== undefined) return present
    const agent = new PortAgent(guest, port, () => {
      if (this.#agents.get(name) === agent) this.#agents.delete(name)
    })
    this.#agents.set(name, agent)
    return agent
  }

  /** Ends every connection, in use or not. */
  close(): void {
    for (const agent of this.#agents.values()) agent.destroy()
  }
}
