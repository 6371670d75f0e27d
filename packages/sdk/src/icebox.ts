import type { CollectResult, WireUsage } from '@icebox/model'
import { isObject } from './answers.ts'
import { Connection, route } from './connection.ts'
import type { CallOptions } from './deadline.ts'
import { Events } from './events.ts'
import { Images } from './images.ts'
import { Keys } from './keys.ts'
import type { List } from './list.ts'
import { Sandboxes } from './sandboxes.ts'
import { type ConnectionOptions, connectionSettings } from './settings.ts'
import { Snapshots } from './snapshots.ts'
import { Templates } from './templates.ts'

export interface ServerInfo {
  version: string
  driver: string
  /** On the server's machine. Told to the installation's own key alone, as is the pid. */
  dataDirectory?: string
  pid?: number
  /** The project of the key. */
  project: string
  /** Whether the key is the installation's own. */
  installation: boolean
}

const isServerInfo = (answer: unknown): answer is ServerInfo =>
  isObject(answer) && typeof answer.driver === 'string' && typeof answer.version === 'string'
const isUsage = (item: unknown): item is WireUsage => isObject(item) && typeof item.sandboxId === 'string'
const isHealth = (answer: unknown): answer is { status: 'ok'; version: string } =>
  isObject(answer) && answer.status === 'ok'

/** One server. Without options it is the one that the environment names, else the one on this machine. */
export class Icebox {
  readonly url: string
  readonly sandboxes: Sandboxes
  readonly snapshots: Snapshots
  readonly templates: Templates
  readonly images: Images
  readonly keys: Keys
  readonly events: Events
  readonly #connection: Connection

  constructor(options: ConnectionOptions = {}) {
    this.#connection = new Connection(connectionSettings(options))
    this.url = this.#connection.url
    this.sandboxes = new Sandboxes(this.#connection)
    this.snapshots = new Snapshots(this.#connection)
    this.templates = new Templates(this.#connection)
    this.images = new Images(this.#connection)
    this.keys = new Keys(this.#connection)
    this.events = new Events(this.#connection)
  }

  /** Whether it answers; needs no key. */
  async health(call: CallOptions = {}): Promise<{ status: 'ok'; version: string }> {
    return this.#connection.json('GET', '/health', isHealth, call)
  }

  async info(call: CallOptions = {}): Promise<ServerInfo> {
    return this.#connection.json('GET', route('info'), isServerInfo, call)
  }

  /** Measurements of the whole installation as Prometheus text. Needs the installation's own key. */
  async metrics(call: CallOptions = {}): Promise<string> {
    return this.#connection.text('GET', '/metrics', call)
  }

  /** The server's API as an OpenAPI 3.1 document. */
  async openapi(call: CallOptions = {}): Promise<object> {
    return this.#connection.json('GET', route('openapi.json'), isObject, call)
  }

  /** What the sandboxes of the project have used that existed in the period (ISO 8601), newest first. */
  usage(options: CallOptions & { from?: string | undefined; to?: string | undefined } = {}): List<WireUsage> {
    const { from, to, ...call } = options
    return this.#connection.list(route('usage'), isUsage, { ...call, query: { from, to } }, (usage) => usage)
  }

  /**
   * Removes what has expired, is over a keep count or is not needed any more: of the key's project, with the installation's own key of
   * all. With `dryRun` it only tells what would go.
   */
  async collect(options: CallOptions & { dryRun?: boolean } = {}): Promise<CollectResult> {
    const { dryRun = false, ...call } = options
    const isResult = (answer: unknown): answer is CollectResult => isObject(answer) && Array.isArray(answer.items)
    return this.#connection.json('POST', route('collect'), isResult, { ...call, json: { dryRun }, idempotent: dryRun })
  }

  /** Ends the server, having paused its sandboxes, deleted them (`kill`) or let them run on (`keep`). Resolves once it has begun. */
  async shutdown(mode: 'pause' | 'keep' | 'kill' = 'pause', call: CallOptions = {}): Promise<void> {
    await this.#connection.send('POST', route('shutdown'), { ...call, json: { mode } })
  }
}
