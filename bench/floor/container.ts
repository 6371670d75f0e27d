import { randomBytes, randomInt } from 'node:crypto'
import { constants } from 'node:fs'
import { link, mkdir, open, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Hello, MachineSpec } from '@icebox/model'
import { mkfifo } from '@icebox/snapshot'
import { type Cgroup, type CgroupTree, parseCores } from '../../packages/node/src/cgroup/cgroup.ts'
import { guestCores, guestMemory, memoryLimit, PIDS } from '../../packages/node/src/driver/gvisor/limits.ts'
import { AGENT_NAME, type OciSpec, placed } from '../../packages/node/src/driver/gvisor/spec.ts'
import { attachLink } from '../../packages/node/src/link/attach.ts'
import type { GuestLink } from '../../packages/node/src/link/link.ts'
import { createNetwork, removeNetwork } from '../../packages/node/src/network/namespace.ts'
import { runsc } from './runsc.ts'

/** Where containers are made by hand. */
export interface FloorHost {
  runsc: string
  cgroups: CgroupTree
  /** What dies with a container: FIFOs, runsc's state. Short, because sockets are made in it. */
  run: string
  /** On the disk of the data directory. */
  bundles: string
}

/** What a container is made of. */
export interface FloorPlan {
  machine: MachineSpec
  oci: OciSpec
  image: string
  agent: string
}

const DIRECT = '--direct'

/**
 * One sandbox by hand: the calls that cannot be left out, in the order that is quickest, and nothing of what makes them an
 * operation that survives a crash. Control groups, the network namespace, the specification and the link are the driver's
 * own code, so that what is compared is the same container.
 */
export class FloorContainer {
  readonly id: string
  readonly #host: FloorHost
  readonly #directory: string
  readonly #bundle: string
  readonly #place: { root: string; log: string; network: string }
  #link: GuestLink | undefined

  constructor(host: FloorHost) {
    // No id may be a prefix of another.
    this.id = `f${randomBytes(9).toString('hex')}`
    this.#host = host
    this.#directory = join(host.run, this.id)
    this.#bundle = join(host.bundles, this.id)
    const at = (name: string) => join(this.#directory, name)
    this.#place = { root: join(host.run, 'r', this.id), log: at('log'), network: at('network') }
  }

  get cgroup(): Cgroup {
    return this.#host.cgroups.find(this.id)
  }

  /** `files`: a filesystem checkpoint it begins with. */
  async create(plan: FloorPlan, files: string | undefined, signal: AbortSignal): Promise<void> {
    const at = (name: string) => join(this.#directory, name)
    await Promise.all([mkdir(this.#directory), mkdir(this.#bundle)])
    for (const name of ['in', 'out']) mkfifo(at(name), 0o600)
    const agent = join(this.#bundle, 'agent')
    const spec = placed(plan.oci, { image: plan.image, agent, network: at('network'), cgroup: this.cgroup.path })
    const { size } = plan.machine
    const cores = await this.#host.cgroups.hostCores()
    const all = parseCores(cores)
    const start = randomInt(all.length)
    const told = [...all.slice(start), ...all.slice(0, start)].slice(0, guestCores(size, all.length)).join(',')
    const limits = { cpu: size.cpu, memoryBytes: guestMemory(size), pids: PIDS, cores: told }
    const [input, output, cgroup] = await Promise.all([
      open(at('in'), constants.O_RDWR),
      open(at('out'), constants.O_RDWR),
      // What the group allows at this moment is what the guest is told it has.
      this.#host.cgroups.make(this.id, limits),
      createNetwork(at('network')),
      mkdir(join(this.#bundle, 'rootfs')),
      writeFile(join(this.#bundle, 'config.json'), JSON.stringify(spec)),
      mkdir(agent).then(() => link(plan.agent, join(agent, AGENT_NAME))),
    ])
    try {
      const beginning = files === undefined ? [] : [`--fs-restore-image-path=${files}`, '--fs-restore-direct']
      const words = ['create', `--bundle=${this.#bundle}`, ...beginning, this.id]
      await runsc(this.#host.runsc, this.#place, words, [input.fd, output.fd], signal)
    } finally {
      await Promise.all([input.close(), output.close()])
    }
    await cgroup.limit({ memoryBytes: memoryLimit(size), cores })
  }

  start(signal: AbortSignal): Promise<void> {
    return this.#call(['start', this.id], signal)
  }

  restore(image: string, signal: AbortSignal): Promise<void> {
    return this.#call(['restore', '--detach', DIRECT, `--image-path=${image}`, this.id], signal)
  }

  pause(signal: AbortSignal): Promise<void> {
    return this.#call(['pause', this.id], signal)
  }

  resume(signal: AbortSignal): Promise<void> {
    return this.#call(['resume', this.id], signal)
  }

  checkpoint(image: string, signal: AbortSignal): Promise<void> {
    return this.#call(['checkpoint', '--leave-running', DIRECT, `--image-path=${image}`, this.id], signal)
  }

  /** `runsc exec`, which asks the sentry itself and not the agent. */
  execByRunsc(argv: string[], signal: AbortSignal): Promise<void> {
    return this.#call(['exec', this.id, ...argv], signal)
  }

  /** Opens the link and tells the guest who it is. */
  async greet(signal: AbortSignal): Promise<void> {
    const at = (name: string) => join(this.#directory, name)
    this.#link = await attachLink({ in: at('in'), out: at('out') }, signal)
    const hello: Hello = {
      sandbox: this.id,
      hostname: this.id,
      machineId: randomBytes(16).toString('hex'),
      env: {},
      defaults: { user: '', workingDir: '' },
    }
    await this.#link.hello(hello, signal)
  }

  /** Resolves when the program has ended well. */
  async exec(argv: string[], signal: AbortSignal): Promise<void> {
    if (this.#link === undefined) throw new Error(`${this.id} was not greeted`)
    // As the SDK asks for it.
    const session = await this.#link.exec({ argv, overflow: 'block' }, signal)
    for await (const event of session.events)
      if (event.type === 'exit' && event.exit.exitCode !== 0)
        throw new Error(`${argv.join(' ')} ended with ${JSON.stringify(event.exit)} in ${this.id}`)
  }

  /** Ends it and removes all that is its, however far it got. */
  async destroy(): Promise<void> {
    this.#link?.detach()
    await this.cgroup.remove()
    await removeNetwork(this.#place.network)
    for (const directory of [this.#place.root, this.#bundle, this.#directory])
      await rm(directory, { recursive: true, force: true })
  }

  #call(words: string[], signal: AbortSignal): Promise<void> {
    return runsc(this.#host.runsc, this.#place, words, ['ignore', 'ignore'], signal)
  }
}

/** Proportional set size in MiB of all processes of a control group: what is shared is counted in parts. */
export async function proportionalMiB(cgroup: Cgroup): Promise<number> {
  let kib = 0
  for (const pid of await cgroup.processes()) {
    const text = await readFile(`/proc/${pid}/smaps_rollup`, 'utf8').catch(() => '')
    kib += Number(/^Pss:\s+(\d+) kB$/m.exec(text)?.[1] ?? 0)
  }
  if (kib === 0) throw new Error(`the control group ${cgroup.path} has no process with memory`)
  return kib / 1024
}
