import { type Icebox, isIceboxError, type Sandbox } from '@icebox/sdk'
import { seenOf } from './census.ts'
import { HalfDone, type Recorder } from './recorder.ts'

/** Files on the disk and in memory. */
export const FILES = ['/root/one', '/root/two', '/dev/shm/one', '/dev/shm/two'] as const
/** A value stands so often in its file that half a write would show. */
const LINES = 200
const COUNT = '/dev/shm/count'
/** A perl that counts for ever: its own name, made once, and the count. It replaces the file whole. */
export const COUNTER = [
  'perl',
  '-e',
  `my $name = "$$-" . time; my $n = 0;
   while (1) { $n++; open(my $f, ">", "${COUNT}.new"); print $f "$name $n"; close($f);
               rename("${COUNT}.new", "${COUNT}"); select(undef, undef, undef, 0.2); }`,
]
export const COUNTING = ['sh', '-c', `test -s ${COUNT}`]
const WRITE = 'yes "$1" | head -n "$2" > "$3.$$" && mv "$3.$$" "$3"'
const READ = 'if [ -e "$1" ]; then uniq -c "$1"; fi'
/** Nothing in this load may take so long: what does hangs. */
const CALL_MS = 120_000

/** Text of a file that is whole, by its one line; of any other as it stands. */
function contentOf(counted: string): string | null {
  if (counted === '') return null
  const whole = /^\s*(\d+) (.*)\n$/.exec(counted)
  return whole?.[1] === String(LINES) && whole[2] !== undefined ? whole[2] : counted
}

/** The sandboxes and snapshots of one server, and every operation on them, written down. */
export class Fleet {
  readonly icebox: Icebox
  readonly recorder: Recorder
  /** What is believed of each: what was last heard, by whichever client. */
  readonly believed = new Map<string, 'Running' | 'Paused'>()
  readonly snapshots = new Set<string>()
  readonly #handles = new Map<string, Sandbox>()
  readonly #deleted = new Set<string>()
  readonly #template: string
  #number = 0

  constructor(icebox: Icebox, template: string, recorder: Recorder) {
    this.icebox = icebox
    this.#template = template
    this.recorder = recorder
  }

  sandboxes(state: 'Running' | 'Paused'): string[] {
    return [...this.believed].flatMap(([id, believed]) => (believed === state ? [id] : []))
  }

  async create(client: number, from?: string): Promise<void> {
    const key = this.#next('key')
    const source = from === undefined ? { template: this.#template } : { snapshot: from }
    const asked = { op: 'create', client, key, ...(from === undefined ? {} : { from }) } as const
    await this.recorder.run<'create'>(asked, async () => {
      const made = await this.icebox.sandboxes.create({ ...source, ...call(), metadata: { key } })
      this.#meet(made)
      return { sandbox: made.id }
    })
  }

  async fork(client: number, sandbox: string, count: number): Promise<void> {
    const key = this.#next('key')
    await this.recorder.run<'fork'>({ op: 'fork', client, key, sandbox, count }, async () => {
      const box = await this.#handle(sandbox)
      const results = await box.forkResults(count, { ...call(), metadata: { key } })
      const children = results.flatMap((result) => ('sandbox' in result ? [result.sandbox.id] : []))
      for (const id of children) this.believed.set(id, 'Running')
      return { children }
    })
  }

  async snapshot(client: number, sandbox: string): Promise<void> {
    const result = await this.recorder.run<'snapshot'>({ op: 'snapshot', client, sandbox }, async () => ({
      snapshot: (await (await this.#handle(sandbox)).snapshot(call())).id,
    }))
    if (result !== undefined) this.snapshots.add(result.snapshot)
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
    const result = await this.recorder.run<'delete'>({ op: 'delete', client, sandbox }, async () => {
      await (await this.#handle(sandbox)).delete(call())
      return {}
    })
    if (result === undefined) this.#deleted.delete(sandbox)
  }

  async pause(client: number, sandbox: string): Promise<void> {
    await this.recorder.run<'pause'>({ op: 'pause', client, sandbox }, async () => {
      await (await this.#handle(sandbox)).pause(call())
      if (this.believed.has(sandbox)) this.believed.set(sandbox, 'Paused')
      return {}
    })
  }

  async resume(client: number, sandbox: string): Promise<void> {
    await this.recorder.run<'resume'>({ op: 'resume', client, sandbox }, async () => {
      await (await this.#handle(sandbox)).resume(call())
      if (this.believed.has(sandbox)) this.believed.set(sandbox, 'Running')
      return {}
    })
  }

  async renew(client: number, sandbox: string, timeout: number): Promise<void> {
    await this.recorder.run<'renew'>({ op: 'renew', client, sandbox }, async () => {
      await (await this.#handle(sandbox)).renew({ timeout }, call())
      return {}
    })
  }

  async write(client: number, sandbox: string, file: string): Promise<void> {
    const value = this.#next('value')
    await this.recorder.run<'write'>({ op: 'write', client, sandbox, file, value }, async () => {
      await this.#output(sandbox, ['sh', '-c', WRITE, 'sh', value, String(LINES), file])
      return {}
    })
  }

  /** The same by the file call. What it sends is no buffer, which the client would send twice when the connection breaks. */
  async upload(client: number, sandbox: string, file: string): Promise<void> {
    const value = this.#next('value')
    const line = Buffer.from(`${value}\n`)
    await this.recorder.run<'write'>({ op: 'write', client, sandbox, file, value }, async () => {
      const box = await this.#handle(sandbox)
      await box.files.write(
        file,
        (async function* () {
          for (let number = 0; number < LINES; number += 1) yield line
        })(),
        call(),
      )
      return {}
    })
  }

  async read(client: number, sandbox: string, file: string): Promise<void> {
    await this.recorder.run<'read'>({ op: 'read', client, sandbox, file }, async () => ({
      value: contentOf(await this.#output(sandbox, ['sh', '-c', READ, 'sh', file])),
    }))
  }

  async count(client: number, sandbox: string): Promise<number | undefined> {
    const result = await this.recorder.run<'count'>({ op: 'count', client, sandbox }, async () => {
      const [process = '', count = ''] = (await this.#output(sandbox, ['cat', COUNT])).split(' ')
      return { process, count: Number(count) }
    })
    return result?.count
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
    this.#handles.set(box.id, box)
    const { state } = box.resource.status
    if (this.#deleted.has(box.id)) return
    if (state === 'Running' || state === 'Paused') this.believed.set(box.id, state)
  }

  async #handle(id: string): Promise<Sandbox> {
    const known = this.#handles.get(id)
    if (known !== undefined) return known
    const handle = await this.icebox.sandboxes.connect(id, call())
    this.#handles.set(id, handle)
    return handle
  }

  /** What a command that has to work writes. One that began and is not known to have ended is half done. */
  async #output(sandbox: string, argv: string[]): Promise<string> {
    const box = await this.#handle(sandbox)
    const exec = box.exec(argv, call())
    let hasBegun = false
    exec.started.then(
      () => {
        hasBegun = true
      },
      () => undefined,
    )
    try {
      const { exitCode, signal, stdout, stderr } = await exec
      if (exitCode !== 0) throw new Error(`${argv.join(' ')} in ${sandbox} ended with ${exitCode ?? signal}: ${stderr}`)
      return stdout
    } catch (thrown) {
      if (hasBegun && isIceboxError(thrown)) throw new HalfDone(thrown.code)
      throw thrown
    }
  }

  #next(what: string): string {
    this.#number += 1
    return `${what}-${this.#number}`
  }
}

const call = () => ({ signal: AbortSignal.timeout(CALL_MS) })
