import type { EventEmitter } from 'node:events'

/** What is needed of a socket. */
interface Connection extends EventEmitter {
  readonly remoteAddress?: string | undefined
  readonly remotePort?: number | undefined
  destroy(): unknown
}

/** Which part of the places one address may have before it has to make room itself. */
const SHARE = 1 / 4

/** Those that wait for a request, in the order in which they began to. */
type Waiting = Map<string, Connection>

/**
 * The connections there are. Once they are as many as there may be, one that waits for a request makes room for each that comes: of the same
 * address where that has a large part of them, else the one that has waited longest. So connections on which nobody asks for anything keep
 * nobody out.
 */
export class Connections {
  readonly #most: number
  #open = 0
  readonly #waiting: Waiting = new Map()
  /** The same by address. */
  readonly #byAddress = new Map<string, Waiting>()
  /** Requests under way, by connection. */
  readonly #busy = new Map<string, number>()

  constructor(most: number) {
    this.#most = most
  }

  admit(socket: Connection): void {
    const [name, address] = [nameOf(socket), socket.remoteAddress ?? '']
    if (this.#open >= this.#most) this.#makeRoom(address)
    this.#open++
    this.#wait(name, address, socket)
    socket.once('close', () => {
      this.#open--
      this.#busy.delete(name)
      this.#leave(name, address)
    })
  }

  /** A request has come, or an upgrade: it is over when the other end of it closes. */
  ask(socket: Connection, over: EventEmitter): void {
    const [name, address] = [nameOf(socket), socket.remoteAddress ?? '']
    this.#leave(name, address)
    this.#busy.set(name, (this.#busy.get(name) ?? 0) + 1)
    over.once('close', () => {
      const busy = this.#busy.get(name)
      // Undefined: the connection has closed meanwhile.
      if (busy === undefined) return
      if (busy > 1) this.#busy.set(name, busy - 1)
      else {
        this.#busy.delete(name)
        this.#wait(name, address, socket)
      }
    })
  }

  #makeRoom(address: string): void {
    const own = this.#byAddress.get(address)
    const from = own !== undefined && own.size > this.#most * SHARE ? own : this.#waiting
    for (const [, socket] of from) {
      socket.destroy()
      return
    }
  }

  #wait(name: string, address: string, socket: Connection): void {
    this.#waiting.set(name, socket)
    const own = this.#byAddress.get(address) ?? new Map()
    this.#byAddress.set(address, own.set(name, socket))
  }

  #leave(name: string, address: string): void {
    this.#waiting.delete(name)
    const own = this.#byAddress.get(address)
    own?.delete(name)
    if (own?.size === 0) this.#byAddress.delete(address)
  }
}

/** The same for a socket and for the one that decrypts it. */
const nameOf = ({ remoteAddress, remotePort }: Connection): string => `${remoteAddress} ${remotePort}`
