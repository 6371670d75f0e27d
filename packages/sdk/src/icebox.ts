import { isObject } from './answers.ts'
import { Connection, route } from './connection.ts'
import type { CallOptions } from './deadline.ts'
import { Events } from './events.ts'
import { Images } from './images.ts'
import { Sandboxes } from './sandboxes.ts'
import { type ConnectionOptions, connectionSettings } from './settings.ts'
import { Snapshots } from './snapshots.ts'
import { Templates } from './templates.ts'

export interface ServerInfo {
  version: string
  driver: string
  dataDirectory: string
  pid: number
}

const isServerInfo = (answer: unknown): answer is ServerInfo =>
  isObject(answer) && typeof answer.pid === 'number' && typeof answer.version === 'string'
const isHealth = (answer: unknown): answer is { status: 'ok'; version: string } =>
  isObject(answer) && answer.status === 'ok'

/** One server. Without options it is the one that the environment names, else the one on this machine. */
export class Icebox {
  readonly url: string
  readonly sandboxes: Sandboxes
  readonly snapshots: Snapshots
  readonly templates: Templates
  readonly images: Images
  readonly events: Events
  readonly #connection: Connection

  constructor(options: ConnectionOptions = {}) {
    this.#connection = new Connection(connectionSettings(options))
    this.url = this.#connection.url
    this.sandboxes = new Sandboxes(this.#connection)
    this.snapshots = new Snapshots(this.#connection)
    this.templates = new Templates(this.#connection)
    this.images = new Images(this.#connection)
    this.events = new Events(this.#connection)
  }

  /** Whether it answers; needs no key. */
  async health(call: CallOptions = {}): Promise<{ status: 'ok'; version: string }> {
    return this.#connection.json('GET', '/health', isHealth, call)
  }

  async info(call: CallOptions = {}): Promise<ServerInfo> {
    return this.#connection.json('GET', route('info'), isServerInfo, call)
  }

  /** Ends the server, having paused its sandboxes, deleted them (`kill`) or let them run on (`keep`). Resolves once it has begun. */
  async shutdown(mode: 'pause' | 'keep' | 'kill' = 'pause', call: CallOptions = {}): Promise<void> {
    await this.#connection.send('POST', route('shutdown'), { ...call, json: { mode } })
  }
}
