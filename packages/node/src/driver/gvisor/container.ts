import { constants } from 'node:fs'
import { mkdir, open, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { MachineSpec } from '@icebox/model'
import { mkfifo } from '@icebox/snapshot'
import { type Cgroup, type CgroupTree, parseCores } from '../../cgroup/cgroup.ts'
import { createNetwork, removeNetwork } from '../../network/namespace.ts'
import type { Agents } from './agent.ts'
import { guestCores, guestMemory, memoryLimit, PIDS } from './limits.ts'
import { hasOpen, identify, isAlive, killProcess, type ProcessIdentity } from './process.ts'
import { callRunsc, wasKilled } from './runsc.ts'
import { type OciSpec, placed } from './spec.ts'

const CREATE_MS = 60_000
const START_MS = 60_000
const RESTORE_MS = 600_000
const PAUSE_MS = 60_000
const SAVE_MS = 1_800_000
const CLOSE_MS = 60_000

/** What a host must have to hold containers. */
export interface Host {
  runsc: string
  cgroups: CgroupTree
  agents: Agents
  /** `bundles/` of the data directory: what must be on disk. */
  bundles: string
  /** `runsc/` of the run directory: runsc's state, a directory for each container. */
  roots: string
  imagePath: (digest: string) => string
  /** Whether the data directory's file system takes O_DIRECT. */
  direct: boolean
}

export interface Plan {
  spec: MachineSpec
  oci: OciSpec
  agent: { digest: string; file?: string }
  /** A filesystem checkpoint whose files the container starts with. */
  files?: string
}

const random = (count: number) => Math.floor(Math.random() * count)

/**
 * A runsc container and all of the host that is its: processes, control group, network namespace, bundle, FIFOs. Named by
 * its id everywhere but in the run directory, which moves when a slot becomes a machine.
 */
export class Container {
  readonly #host: Host
  readonly id: string
  readonly process: ProcessIdentity
  readonly cgroup: Cgroup
  /** Its run directory: in, out, log, network. */
  readonly directory: string

  constructor(host: Host, id: string, directory: string, process: ProcessIdentity) {
    this.#host = host
    this.id = id
    this.directory = directory
    this.process = process
    this.cgroup = host.cgroups.find(id)
  }

  get in(): string {
    return join(this.directory, 'in')
  }

  get out(): string {
    return join(this.directory, 'out')
  }

  get log(): string {
    return join(this.directory, 'log')
  }

  /** The same container in another run directory. */
  movedTo(directory: string): Container {
    return new Container(this.#host, this.id, directory, this.process)
  }

  isAlive(): Promise<boolean> {
    return isAlive(this.process)
  }

  start(signal: AbortSignal): Promise<void> {
    return this.#call(['start', this.id], START_MS, true, signal)
  }

  restore(image: string, signal: AbortSignal): Promise<void> {
    return this.#call(
      ['restore', '--detach', ...this.#direct(), `--image-path=${image}`, this.id],
      RESTORE_MS,
      true,
      signal,
    )
  }

  pause(signal: AbortSignal): Promise<void> {
    return this.#call(['pause', this.id], PAUSE_MS, false, signal)
  }

  resume(signal: AbortSignal): Promise<void> {
    return this.#call(['resume', this.id], PAUSE_MS, false, signal)
  }

  checkpoint(image: string, signal: AbortSignal): Promise<void> {
    const options = ['--leave-running', ...this.#direct(), `--image-path=${image}`]
    return this.#save(['checkpoint', ...options, this.id], image, signal)
  }

  /** The files of the root file system only. */
  checkpointFiles(image: string, signal: AbortSignal): Promise<void> {
    const options = ['--leave-running', ...this.#direct(), `--image-path=${image}`]
    return this.#save(['fscheckpoint', ...options, this.id], image, signal)
  }

  /**
   * The sentry finishes a save whatever becomes of the command, and a second one meanwhile would break it. So it is not
   * aborted, and when somebody killed the command, waited for until the sentry has closed the files. (Not after other failures:
   * then it has ended, and a file may stay open until the sentry collects its garbage.)
   */
  async #save(words: string[], image: string, signal: AbortSignal): Promise<void> {
    try {
      await this.#call(words, SAVE_MS, false, signal)
    } catch (thrown) {
      const end = performance.now() + CLOSE_MS
      if (wasKilled(thrown)) while (performance.now() < end && (await hasOpen(this.process, image))) await sleep(10)
      throw thrown
    }
    signal.throwIfAborted()
  }

  /** What runsc believes: `created`, `running`, `paused` or `stopped`. */
  async status(): Promise<string> {
    const file = join(rootOf(this.#host, this.id), `${this.id}_sandbox:${this.id}.state`)
    const state: unknown = JSON.parse(await readFile(file, 'utf8'))
    if (typeof state !== 'object' || state === null || !('status' in state)) throw new Error(`${file} has no status`)
    return String(state.status)
  }

  /** Bytes that the upper layer of its disk takes on the host. */
  async diskBytes(): Promise<number> {
    const { blocks } = await stat(join(bundleOf(this.#host, this.id), 'rootfs', `.gvisor.filestore.${this.id}`))
    return blocks * 512
  }

  /** The agent it was started with. */
  get agent(): string {
    return join(bundleOf(this.#host, this.id), 'agent', 'guest')
  }

  async destroy(): Promise<void> {
    await killProcess(this.process)
    await destroyContainer(this.#host, this.id, this.directory)
  }

  #direct(): string[] {
    return this.#host.direct ? ['--direct'] : []
  }

  #call(words: string[], deadlineMs: number, abortable: boolean, signal: AbortSignal): Promise<void> {
    return callRunsc(
      this.#host.runsc,
      {
        arguments: words,
        root: rootOf(this.#host, this.id),
        log: this.log,
        network: join(this.directory, 'network'),
        deadlineMs,
        abortable,
      },
      signal,
    )
  }
}

const rootOf = (host: Host, id: string) => join(host.roots, id)
const bundleOf = (host: Host, id: string) => join(host.bundles, id)

/**
 * Creates a container, ready for start or restore, in an empty run directory. What is there after a failure is taken away
 * by `destroyContainer`.
 */
export async function createContainer(
  host: Host,
  id: string,
  directory: string,
  plan: Plan,
  signal: AbortSignal,
): Promise<Container> {
  const { size } = plan.spec
  const bundle = bundleOf(host, id)
  const network = join(directory, 'network')
  const cores = parseCores(await host.cgroups.hostCores())
  const start = random(cores.length)
  const chosen = [...cores.slice(start), ...cores.slice(0, start)].slice(0, guestCores(size, cores.length))
  const place = {
    image: host.imagePath(plan.spec.imageDigest),
    agent: join(bundle, 'agent'),
    network,
    cgroup: host.cgroups.find(id).path,
  }
  for (const name of ['in', 'out']) mkfifo(join(directory, name), 0o600)
  const [cgroup] = await Promise.all([
    // runsc tells the guest the memory and the cores that its group has at this moment.
    host.cgroups.make(id, { cpu: size.cpu, memoryBytes: guestMemory(size), pids: PIDS, cores: chosen.join(',') }),
    createNetwork(network),
    mkdir(bundle).then(() =>
      Promise.all([
        mkdir(join(bundle, 'rootfs')),
        writeFile(join(bundle, 'config.json'), JSON.stringify(placed(plan.oci, place))),
        host.agents.install(place.agent, plan.agent),
      ]),
    ),
  ])
  const input = await open(join(directory, 'in'), constants.O_RDWR)
  try {
    const output = await open(join(directory, 'out'), constants.O_RDWR)
    try {
      const files = plan.files
        ? [`--fs-restore-image-path=${plan.files}`, ...(host.direct ? ['--fs-restore-direct'] : [])]
        : []
      await callRunsc(
        host.runsc,
        {
          arguments: ['create', `--bundle=${bundle}`, `--pid-file=${join(directory, 'pid')}`, ...files, id],
          root: rootOf(host, id),
          log: join(directory, 'log'),
          network,
          // The sandbox itself holds both ends, so that nothing is lost while nobody else has them open.
          stdio: [input.fd, output.fd],
          deadlineMs: CREATE_MS,
          abortable: true,
        },
        signal,
      )
    } finally {
      await output.close()
    }
  } finally {
    await input.close()
  }
  const [pid] = await Promise.all([
    readFile(join(directory, 'pid'), 'utf8'),
    cgroup.limit({ memoryBytes: memoryLimit(size), cores: await host.cgroups.hostCores() }),
  ])
  const process = await identify(Number(pid))
  if (!process) throw new Error(`the sandbox ${id} ended as soon as it was created`)
  return new Container(host, id, directory, process)
}

/** Takes away everything that bears the container's name, and its run directory last. Doing it twice is the same as once. */
export async function destroyContainer(host: Host, id: string, directory?: string): Promise<void> {
  // First the processes: each of them could make something anew.
  await host.cgroups.find(id).remove()
  if (directory) await removeNetwork(join(directory, 'network'))
  await Promise.all([
    rm(rootOf(host, id), { recursive: true, force: true }),
    rm(bundleOf(host, id), { recursive: true, force: true }),
  ])
  if (directory) await rm(directory, { recursive: true, force: true })
}
