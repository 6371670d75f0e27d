import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type ExecutionId, IceboxError, type MachineExit, type MachineSpec, type SnapshotKind } from '@icebox/model'
import { z } from 'zod'
import type { GuestLink } from '../../link/link.ts'
import type { DriverFacts, Machine, Saved } from '../driver.ts'
import { linkOrCopy } from './agent.ts'
import type { Container } from './container.ts'
import { lastWords } from './log.ts'
import { type MachineRecord, writeRecord } from './record.ts'

const FILES = {
  memory: ['checkpoint.img', 'pages.img', 'pages_meta.img'],
  filesystem: ['fscheckpoint.pb', 'multitar.img', 'pages.img', 'pages_meta.img'],
} as const satisfies Record<SnapshotKind, readonly string[]>
/** What a restore must know besides runsc's own files. */
const FACTS = 'gvisor.json'
const AGENT = 'guest'

/** How often a machine is looked at whose link ended although it lives. */
const LOOK_MS = 500
const SOON_MS = 10

const SavedFacts = z.object({
  version: z.literal(1),
  kind: z.enum(['memory', 'filesystem']),
  /** sha256 of the agent in it. */
  agent: z.string().regex(/^[0-9a-f]{64}$/),
  /** What the upper layer of the disk took on the host. Older saves do not say. */
  diskBytes: z.int().min(0).exactOptional(),
})
export type SavedFacts = z.infer<typeof SavedFacts>

/** Throws SnapshotCorrupt. */
export async function readFacts(directory: string, kind: SnapshotKind): Promise<SavedFacts & { agentFile: string }> {
  try {
    const facts = SavedFacts.parse(JSON.parse(await readFile(join(directory, FACTS), 'utf8')))
    if (facts.kind !== kind) throw new Error(`it is of kind ${facts.kind}, not ${kind}`)
    return { ...facts, agentFile: join(directory, AGENT) }
  } catch (thrown) {
    throw new IceboxError('SnapshotCorrupt', `${FACTS} of the snapshot cannot be used: ${thrown}`, { cause: thrown })
  }
}

export class GvisorMachine implements Machine {
  readonly execution: ExecutionId
  readonly spec: MachineSpec
  readonly link: GuestLink
  readonly exited: Promise<MachineExit>
  readonly #container: Container
  readonly #driver: DriverFacts
  readonly #resolveExited: (exit: MachineExit) => void
  #record: MachineRecord
  #frozen: boolean
  #ending: Promise<void> | undefined
  #released = false

  constructor(options: {
    container: Container
    record: MachineRecord
    link: GuestLink
    frozen: boolean
    driver: DriverFacts
  }) {
    this.#container = options.container
    this.#record = options.record
    this.execution = options.record.execution
    this.spec = options.record.spec
    this.link = options.link
    this.#frozen = options.frozen
    this.#driver = options.driver
    const { promise, resolve } = Promise.withResolvers<MachineExit>()
    this.exited = promise
    this.#resolveExited = resolve
    void this.#watch()
  }

  get frozen(): boolean {
    return this.#frozen
  }

  async freeze(signal: AbortSignal): Promise<void> {
    if (this.#frozen) return
    await this.#remember('freeze')
    try {
      await this.#container.pause(signal)
      this.#frozen = true
    } catch (thrown) {
      if ((await this.#container.status().catch(() => '')) === 'paused') this.#frozen = true
      else await this.#remember(undefined)
      throw thrown
    }
  }

  async save(directory: string, kind: SnapshotKind, signal: AbortSignal): Promise<Saved> {
    if (!this.#frozen)
      throw new IceboxError('InvalidState', `the machine ${this.execution} must be frozen before it is saved`)
    try {
      if (kind === 'memory') await this.#container.checkpoint(directory, signal)
      else await this.#container.checkpointFiles(directory, signal)
      const diskBytes = await this.#container.diskBytes()
      const facts: SavedFacts = { version: 1, kind, agent: this.#record.agent, diskBytes }
      await writeFile(join(directory, FACTS), JSON.stringify(facts))
      // Files boot with the agent of their day, memory goes on with the one that is in it.
      if (kind === 'memory') await linkOrCopy(this.#container.agent, join(directory, AGENT))
    } catch (thrown) {
      throw IceboxError.from(thrown)
    }
    return {
      files: [...FILES[kind], FACTS, ...(kind === 'memory' ? [AGENT] : [])],
      driver: this.#driver,
      agentDigest: `sha256:${this.#record.agent}`,
    }
  }

  async thaw(signal: AbortSignal): Promise<void> {
    if (!this.#frozen) return
    await this.#container.resume(signal)
    this.#frozen = false
    await this.#remember(undefined)
  }

  async kill(_signal: AbortSignal): Promise<void> {
    // Without it the next server would take an end that was broken off for a crash; it is ended all the same.
    if (!this.#ending) await this.#remember('kill').catch(() => {})
    await this.#end('killed', 'it was ended')
  }

  async usage(_signal: AbortSignal): Promise<{ cpuSeconds: number; memoryBytes: number; diskBytes: number }> {
    const [usage, diskBytes] = await Promise.all([this.#container.cgroup.usage(), this.#container.diskBytes()])
    return { ...usage, diskBytes }
  }

  /** Stops looking after it; it goes on. */
  release(): void {
    this.#released = true
    this.link.detach()
  }

  async #remember(operation: MachineRecord['operation']): Promise<void> {
    const { operation: _, ...rest } = this.#record
    this.#record = operation === undefined ? rest : { ...rest, operation }
    await writeRecord(this.#container.directory, this.#record)
  }

  /** The sandbox holds both ends of its FIFOs, so the link ends with the sentry, or when somebody lets go of it. */
  async #watch(): Promise<void> {
    await this.link.closed
    for (let pause = SOON_MS; !this.#released && !this.#ending; pause = Math.min(pause * 2, LOOK_MS)) {
      if (!(await this.#container.isAlive())) return this.#reap()
      await sleep(pause, undefined, { ref: false })
    }
  }

  async #reap(): Promise<void> {
    if (this.#ending) return
    const { memoryMiB } = this.spec.size
    if ((await this.#container.cgroup.oomKills()) > 0)
      return this.#end('OutOfMemory', `it used more than its ${memoryMiB} MiB of memory`)
    const said = await lastWords(this.#container.log)
    await this.#end('Crashed', said ? `its kernel ended: ${said}` : 'its first process or its kernel ended')
  }

  #end(reason: MachineExit['reason'], message: string): Promise<void> {
    this.#ending ??= this.#container.destroy().then(
      () => {
        this.link.detach()
        this.#resolveExited({ execution: this.execution, reason, message })
      },
      (thrown) => {
        // Tried again by the next kill, or by whoever adopts.
        this.#ending = undefined
        if (reason === 'killed') throw thrown
        this.#resolveExited({ execution: this.execution, reason, message: `${message}; what is left: ${thrown}` })
      },
    )
    return this.#ending
  }
}
