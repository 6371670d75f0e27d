import type { Icebox, Sandbox } from '@icebox/sdk'
import { seenOf } from './census.ts'
import { E2bWay } from './e2b-way.ts'
import type { Recorder } from './recorder.ts'
import { SdkWay } from './sdk-way.ts'
import { call, LONG_SECONDS, type Wanted, type Way } from './way.ts'

/** Files on the disk and in memory. */
export const FILES = ['/root/one', '/root/two', '/dev/shm/one', '/dev/shm/two'] as const
/** A value stands so often in its file that half a write would show. */
const LINES = 200
const WRITE = 'yes "$1" | head -n "$2" > "$3.$$" && mv "$3.$$" "$3"'
/** Creates that are remembered to be sent again. */
const REMEMBERED = 20
/** By how much a time may end early: the server's clock has whole milliseconds, the history's is another one. */
const CLOCK_MS = 10

/** Text of a file that is whole, by its one line; of any other as it stands. */
function contentOf(text: string | null): string | null {
  if (text === null) return null
  const [line = ''] = text.split('\n', 1)
  return text === `${line}\n`.repeat(LINES) ? line : text
}

/** The sandboxes and snapshots of one server, and every operation on them, written down. */
export class Fleet {
  readonly icebox: Icebox
  readonly recorder: Recorder
  /** What is believed of each: what was last heard, by whichever client. */
  readonly believed = new Map<string, 'Running' | 'Paused'>()
  readonly snapshots = new Set<string>()
  readonly #deleted = new Set<string>()
  readonly #template: string
  readonly #sdk: SdkWay
  readonly #e2b: E2bWay
  /** Creates that were sent lately, and by whose way. */
  readonly #creates = new Map<string, { wanted: Wanted; way: Way; isAnswered: boolean }>()
  #number = 0

  constructor(icebox: Icebox, apiKey: string, template: string, recorder: Recorder) {
    this.icebox = icebox
    this.#template = template
    this.#sdk = new SdkWay(icebox)
    this.#e2b = new E2bWay(icebox.url, apiKey)
    this.recorder = recorder
  }

  sandboxes(state: 'Running' | 'Paused'): string[] {
    return [...this.believed].flatMap(([id, believed]) => (believed === state ? [id] : []))
  }

  /** Half of the clients are E2B's. */
  #way(client: number): Way {
    return client % 2 === 0 && client !== 0 ? this.#e2b : this.#sdk
  }

  async create(client: number, options: { from?: string | undefined; wakes: boolean }): Promise<void> {
    const { from, wakes } = options
    const wanted = { key: this.#next('key'), template: this.#template, wakes, ...(from === undefined ? {} : { from }) }
    this.#creates.set(wanted.key, { wanted, way: this.#way(client), isAnswered: false })
    for (const oldest of this.#creates.keys()) {
      if (this.#creates.size <= REMEMBERED) break
      this.#creates.delete(oldest)
    }
    await this.again(client, wanted.key)
  }

  /** Sends a create, as whoever sent it first. */
  async again(client: number, key: string): Promise<void> {
    const create = this.#creates.get(key)
    if (create === undefined) return
    const { wanted, way } = create
    const { template: _template, ...rest } = wanted
    const outcome = await this.recorder.run<'create'>({ op: 'create', client, ...rest }, async () => {
      const sandbox = await way.create(wanted)
      if (!this.#deleted.has(sandbox) && !this.believed.has(sandbox)) this.believed.set(sandbox, 'Running')
      return { sandbox }
    })
    create.isAnswered = outcome.is !== 'unknown'
  }

  /** Keys of creates that were sent lately: those without an answer, when there are any. */
  get repeatable(): string[] {
    const all = [...this.#creates]
    const unanswered = all.filter(([, { isAnswered }]) => !isAnswered)
    return (unanswered.length > 0 ? unanswered : all).map(([key]) => key)
  }

  async fork(client: number, sandbox: string, count: number): Promise<void> {
    const key = this.#next('key')
    await this.recorder.run<'fork'>({ op: 'fork', client, key, sandbox, count }, async () => {
      const box = await this.#sdk.handle(sandbox)
      const results = await box.forkResults(count, { ...call(), metadata: { key }, timeout: LONG_SECONDS })
      const children = results.flatMap((result) => ('sandbox' in result ? [result.sandbox.id] : []))
      for (const id of children) this.believed.set(id, 'Running')
      return { children }
    })
  }

  async snapshot(client: number, sandbox: string): Promise<void> {
    const outcome = await this.recorder.run<'snapshot'>({ op: 'snapshot', client, sandbox }, async () => ({
      snapshot: (await (await this.#sdk.handle(sandbox)).snapshot(call())).id,
    }))
    if (outcome.is === 'ok') this.snapshots.add(outcome.snapshot)
  }

  async drop(client: number, snapshot: string): Promise<void> {
    this.snapshots.delete(snapshot)
    await this.recorder.run<'drop'>({ op: 'drop', client, snapshot }, async () => {
      await this.icebox.snapshots.delete(snapshot, call())
      return {}
    })
  }

  async delete(client: number, sandbox: string): Promise<void> {
    this.believed.delete(sandbox)
    // A list that was asked for before may still show it.
    this.#deleted.add(sandbox)
    const { is } = await this.recorder.run<'delete'>({ op: 'delete', client, sandbox }, async () => {
      await this.#way(client).delete(sandbox)
      return {}
    })
    if (is !== 'ok') this.#deleted.delete(sandbox)
  }

  async pause(client: number, sandbox: string): Promise<void> {
    await this.recorder.run<'pause'>({ op: 'pause', client, sandbox }, async () => {
      await this.#way(client).pause(sandbox)
      if (this.believed.has(sandbox)) this.believed.set(sandbox, 'Paused')
      return {}
    })
  }

  async resume(client: number, sandbox: string): Promise<void> {
    await this.recorder.run<'resume'>({ op: 'resume', client, sandbox }, async () => {
      await this.#way(client).resume(sandbox)
      if (this.believed.has(sandbox)) this.believed.set(sandbox, 'Running')
      return {}
    })
  }

  async renew(client: number, sandbox: string): Promise<void> {
    await this.recorder.run<'renew'>({ op: 'renew', client, sandbox }, async () => {
      await this.#way(client).endIn(sandbox, LONG_SECONDS)
      return {}
    })
  }

  /** It is paused by itself. */
  async expire(client: number, sandbox: string, seconds: number): Promise<void> {
    const after = seconds * 1000 - CLOCK_MS
    await this.recorder.run<'expire'>({ op: 'expire', client, sandbox, after }, async () => {
      await this.#way(client).endIn(sandbox, seconds)
      return {}
    })
  }

  /** By a process in it. */
  async write(client: number, sandbox: string, file: string): Promise<void> {
    const value = this.#next('value')
    await this.recorder.run<'write'>({ op: 'write', client, sandbox, file, value }, async () => {
      await this.#sdk.output(sandbox, ['sh', '-c', WRITE, 'sh', value, String(LINES), file])
      return {}
    })
  }

  /** The same by the file call. */
  async upload(client: number, sandbox: string, file: string): Promise<void> {
    const value = this.#next('value')
    await this.recorder.run<'write'>({ op: 'write', client, sandbox, file, value }, async () => {
      await this.#way(client).upload(sandbox, file, Array(LINES).fill(`${value}\n`))
      return {}
    })
  }

  async read(client: number, sandbox: string, file: string): Promise<void> {
    await this.recorder.run<'read'>({ op: 'read', client, sandbox, file }, async () => ({
      value: contentOf(await this.#way(client).read(sandbox, file)),
    }))
  }

  async count(client: number, sandbox: string): Promise<number | undefined> {
    const outcome = await this.recorder.run<'count'>({ op: 'count', client, sandbox }, async () => {
      const [process = '', count = ''] = (await this.#way(client).count(sandbox)).split(' ')
      return { process, count: Number(count) }
    })
    return outcome.is === 'ok' ? outcome.count : undefined
  }

  /** Learns of what others made, or of what was made though the answer was lost. */
  async list(client: number): Promise<void> {
    await this.recorder.run<'list'>({ op: 'list', client }, async () => {
      const found = await this.icebox.sandboxes.list(call())
      for (const box of found) this.#meet(box)
      return { sandboxes: found.map(({ resource }) => seenOf(resource)) }
    })
  }

  #meet(box: Sandbox): void {
    this.#sdk.meet(box)
    const { state } = box.resource.status
    if (this.#deleted.has(box.id)) return
    if (state === 'Running' || state === 'Paused') this.believed.set(box.id, state)
  }

  #next(what: string): string {
    this.#number += 1
    return `${what}-${this.#number}`
  }
}
