import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readFile, realpath, rm } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { openIcebox } from '@icebox/cli'
import type { MachineSpec, Phases } from '@icebox/model'
import { BASE_IMAGE, ensureRuntime, stepReport } from '@icebox/node'
import { Icebox, type Sandbox } from '@icebox/sdk'
import { runDirectoryOf } from '@icebox/snapshot'
import { CgroupTree } from '../packages/node/src/cgroup/cgroup.ts'
import { readFacts } from '../packages/node/src/driver/gvisor/machine.ts'
import { ociSpec } from '../packages/node/src/driver/gvisor/spec.ts'
import { runscIdentity } from '../packages/node/src/driver/gvisor/version.ts'
import { FloorContainer, type FloorHost, type FloorPlan } from './floor/container.ts'

const TEMPLATE = 'bench'
const CLOSE_MS = 120_000

/** A snapshot of ours, ready to be restored by hand. */
export interface FloorSnapshot {
  directory: string
  plan: FloorPlan
}

/**
 * An Icebox of its own in this process, on a data directory that goes afterwards, and beside it what is needed to do the same
 * by hand with the same files.
 */
export interface Stage {
  /** By HTTP, as any client. */
  icebox: Icebox
  /** The key of its installation. */
  apiKey: string
  /** Name of a template of the base image. */
  template: string
  /** The snapshot that creates from the template restore. */
  templateSnapshot: FloorSnapshot
  machine: MachineSpec
  /** Keeps `count` slots for machines of the template; resolves when they are there. */
  slots(count: number): Promise<void>
  /** Where a snapshot of ours lies. */
  snapshot(id: string, kind: 'memory' | 'filesystem'): Promise<FloorSnapshot>
  /** Runs that exist now. */
  executions(): string[]
  /** Resolves when no run exists: a pause is answered before the last of its machine is gone. */
  ended(): Promise<void>
  /** The control group of a run of ours. */
  cgroupOf(execution: string): ReturnType<CgroupTree['find']>
  floor: FloorHost
  /** The phases of the last `count` operations of this name, milliseconds, oldest first; waits until there are so many. */
  phases(operation: string, count: number): Promise<Phases[]>
}

/** Where everything is measured: a scratch directory on disk and, for those who ask for it, a stage. */
export class Lab {
  readonly directory: string
  readonly #signal: AbortSignal
  readonly #undo: (() => Promise<unknown>)[] = []
  #stage: Promise<Stage> | undefined

  private constructor(directory: string, signal: AbortSignal) {
    this.directory = directory
    this.#signal = signal
    this.#undo.push(() => rm(directory, { recursive: true, force: true }))
  }

  static async open(signal: AbortSignal): Promise<Lab> {
    // /tmp may be in memory, where nothing has to become durable.
    return new Lab(await mkdtemp(join(process.env.TMPDIR ?? '/var/tmp', 'icebox-bench-')), signal)
  }

  stage(): Promise<Stage> {
    this.#stage ??= this.#open()
    return this.#stage
  }

  /** Ends and removes everything, also when opening failed half-way. */
  async close(): Promise<void> {
    await this.#stage?.catch(() => {})
    let failure: unknown
    for (const step of this.#undo.reverse())
      await step().catch((thrown: unknown) => {
        failure ??= thrown
      })
    if (failure !== undefined) throw failure
  }

  async #open(): Promise<Stage> {
    const signal = this.#signal
    const report = stepReport(process.stderr)
    const programs = await ensureRuntime(report, signal)
    const data = join(this.directory, 'data')
    await mkdir(data)
    const run = runDirectoryOf(await realpath(data))
    this.#undo.push(() => rm(run, { recursive: true, force: true }))
    const server = await openIcebox(
      {
        dataDirectory: data,
        reach: { listen: { host: '127.0.0.1', port: 0 } },
        report,
        slots: 0,
        onShutdown: () => {},
      },
      signal,
    )
    this.#undo.push(() => server.close('kill', AbortSignal.timeout(CLOSE_MS)))
    const apiKey = (await readFile(server.keyFile, 'utf8')).trim()
    const icebox = new Icebox({ url: server.url, apiKey })
    const floor = await this.#floor(programs.runsc)
    const { version } = await runscIdentity(programs.runsc, signal)
    const { snapshotId, size } = await icebox.templates.build({ name: TEMPLATE, image: BASE_IMAGE, signal })
    const [image] = await icebox.images.list()
    if (snapshotId === undefined || image === undefined) throw new Error('the template has no snapshot or no image')
    const machine: MachineSpec = { imageDigest: image.digest, size }
    const snapshot = async (id: string, kind: 'memory' | 'filesystem'): Promise<FloorSnapshot> => {
      const directory = join(data, 'snapshots', id, 'files')
      const { agent } = await readFacts(directory, kind)
      const plan: FloorPlan = {
        machine,
        oci: ociSpec(machine, `${version}+${agent}`),
        image: join(data, 'images', image.id, 'image.erofs'),
        agent: join(data, 'agents', agent),
      }
      return { directory, plan }
    }
    const groups = await CgroupTree.open(join('/icebox', basename(run)))
    return {
      ...{ icebox, apiKey, machine, snapshot, floor, template: TEMPLATE },
      templateSnapshot: await snapshot(snapshotId, 'memory'),
      slots: (count) => server.node.prepareSlots(machine, count, signal),
      ended: async () => {
        while (server.node.machines().length > 0) await sleep(5, undefined, { signal })
      },
      executions: () => server.node.machines().map(({ execution }) => execution),
      cgroupOf: (execution) => groups.find(execution),
      phases: async (operation, count) => {
        for (;;) {
          const lines = (await readFile(join(data, 'server.log'), 'utf8')).split('\n').slice(0, -1)
          const found: { event: string; operation: string; phases: Phases }[] = lines.map((line) => JSON.parse(line))
          const wanted = found.filter((line) => line.event === 'operation' && line.operation === operation)
          if (wanted.length >= count) return wanted.slice(-count).map(({ phases }) => phases)
          await sleep(5, undefined, { signal })
        }
      },
    }
  }

  async #floor(program: string): Promise<FloorHost> {
    const run = await mkdtemp('/run/icebox-bench-')
    this.#undo.push(() => rm(run, { recursive: true, force: true }))
    const cgroups = await CgroupTree.open(`/icebox/bench-${randomBytes(4).toString('hex')}`)
    this.#undo.push(() => cgroups.removeParent())
    const bundles = join(this.directory, 'floor')
    await Promise.all([mkdir(bundles), mkdir(join(run, 'r'))])
    return { runsc: program, cgroups, run, bundles }
  }
}

/** A sandbox for the time of the work, gone afterwards. */
export async function withSandbox<R>(making: Promise<Sandbox>, work: (sandbox: Sandbox) => Promise<R>): Promise<R> {
  await using sandbox = await making
  return await work(sandbox)
}

/** A snapshot restored by hand: it answers, and is gone after the work. */
export async function withFloor<R>(
  stage: Stage,
  { directory, plan }: FloorSnapshot,
  work: (container: FloorContainer) => Promise<R>,
  signal: AbortSignal,
): Promise<R> {
  const container = new FloorContainer(stage.floor)
  try {
    await container.create(plan, undefined, signal)
    await container.restore(directory, signal)
    await container.greet(signal)
    return await work(container)
  } finally {
    await container.destroy()
  }
}
