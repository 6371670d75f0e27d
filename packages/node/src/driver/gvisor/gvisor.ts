import { constants } from 'node:fs'
import { mkdir, open, readdir, rename, rm, rmdir } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { basename, join } from 'node:path'
import { type ExecutionId, IceboxError, type MachineExit, type MachineSpec, type SnapshotKind } from '@icebox/model'
import { CgroupTree } from '../../cgroup/cgroup.ts'
import { missingControllers } from '../../cgroup/layout.ts'
import { cgroupMounts } from '../../cgroup/mounts.ts'
import { attachLink } from '../../link/attach.ts'
import { runscBuild } from '../../setup/runsc.ts'
import type { Capabilities, Driver, DriverFacts, Machine, Probe } from '../driver.ts'
import { adoptMachines } from './adopt.ts'
import { Agents } from './agent.ts'
import { type Container, createContainer, destroyContainer, type Host, type Plan } from './container.ts'
import { GvisorMachine, readFacts } from './machine.ts'
import { readBootId } from './process.ts'
import { type MachineRecord, writeRecord } from './record.ts'
import { FLAGS } from './runsc.ts'
import { Slots } from './slots.ts'
import { ociSpec, specKey } from './spec.ts'
import { Turns } from './turns.ts'
import { cpuFeatures, runscIdentity } from './version.ts'

const ATTACH_MS = 30_000
/** A socket's address holds 107 bytes, and runsc puts its own under `runsc/<20>/runsc-<20>.sock`. */
const RUN_DIRECTORY_BYTES = 107 - '/runsc/'.length - 20 - '/runsc-'.length - 20 - '.sock'.length

export interface GvisorConfig {
  /** The runsc program. */
  runsc: string
  /** The guest agent: one static program. */
  guest: string
  /** Durable; bundles/ and tmp/ in it are used. The same file system as the directories that machines are saved to. */
  dataDirectory: string
  /** What dies with the machines; at most 48 bytes, because sockets are made in it. */
  runDirectory: string
  /** The EROFS file of an image. */
  imagePath: (digest: string) => string
}

interface Prepared {
  host: Host
  driverVersion: string
  facts: DriverFacts
  bootId: string
}

/** Whether files there can be opened past the page cache, which is faster for what is written or read once. */
async function takesDirect(directory: string): Promise<boolean> {
  // Always the same name: what a killed server leaves is taken away by the next.
  const file = join(directory, 'direct')
  try {
    await (await open(file, constants.O_CREAT | constants.O_RDWR | constants.O_DIRECT, 0o600)).close()
    return true
  } catch {
    return false
  } finally {
    await rm(file, { force: true })
  }
}

class GvisorDriver implements Driver {
  readonly name = 'gvisor'
  readonly capabilities: Capabilities = { memorySnapshots: true, incremental: false, lazyRestore: false }
  readonly #config: GvisorConfig
  readonly #machinesDirectory: string
  readonly #slotsDirectory: string
  // A create or restore waits for the kernel half of its time. Measured with 20 on two cores: 4 to 20 at once take equally long.
  readonly #turns = new Turns(4 * availableParallelism())
  readonly #slots: Slots<Plan>
  readonly #machines = new Set<GvisorMachine>()
  #prepared: Promise<Prepared> | undefined

  constructor(config: GvisorConfig) {
    if (Buffer.byteLength(config.runDirectory) > RUN_DIRECTORY_BYTES)
      throw new IceboxError(
        'InvalidArgument',
        `the run directory ${config.runDirectory} is longer than ${RUN_DIRECTORY_BYTES} bytes: sockets in it could not be named`,
      )
    this.#config = config
    this.#machinesDirectory = join(config.runDirectory, 'machines')
    this.#slotsDirectory = join(config.runDirectory, 'slots')
    this.#slots = new Slots((id, plan, signal) => this.#createSlot(id, plan, signal), this.#turns)
  }

  async probe(signal: AbortSignal): Promise<Probe> {
    const unusable = (reason: string, found?: { version: string; digest: string }) => ({
      usable: false,
      version: found?.version ?? '',
      digest: found?.digest ?? '',
      reason,
    })
    try {
      const found = await runscIdentity(this.#config.runsc, signal)
      const { version } = await runscBuild()
      if (found.version !== version)
        return unusable(
          `${this.#config.runsc} is runsc ${found.version}; only the pinned ${version} runs sandboxes`,
          found,
        )
      if (process.geteuid?.() !== 0) return unusable('runsc needs root to make sandboxes', found)
      const missing = missingControllers(await cgroupMounts())
      if (missing.length > 0) return unusable(`the kernel's control groups lack ${missing.join(', ')}`, found)
      return { usable: true, ...found, reason: 'gVisor runs on any CPU, without KVM' }
    } catch (thrown) {
      signal.throwIfAborted()
      return unusable(`${this.#config.runsc} cannot be run: ${thrown instanceof Error ? thrown.message : thrown}`)
    }
  }

  async facts(_signal: AbortSignal): Promise<DriverFacts> {
    return (await this.#prepare()).facts
  }

  async boot(execution: ExecutionId, spec: MachineSpec, signal: AbortSignal): Promise<Machine> {
    const agent = { digest: await (await this.#prepare()).host.agents.current() }
    return this.#run(execution, { spec, agent }, 'boot', (container) => container.start(signal), signal)
  }

  async restore(
    execution: ExecutionId,
    saved: { directory: string; kind: SnapshotKind },
    spec: MachineSpec,
    signal: AbortSignal,
  ): Promise<Machine> {
    const facts = await readFacts(saved.directory, saved.kind)
    if (saved.kind === 'filesystem') {
      const agent = { digest: await (await this.#prepare()).host.agents.current() }
      const start = (container: Container) => container.start(signal)
      return this.#run(execution, { spec, agent, files: saved.directory }, 'restore', start, signal)
    }
    const agent = { digest: facts.agent, file: facts.agentFile }
    const restore = (container: Container) => container.restore(saved.directory, signal)
    return this.#run(execution, { spec, agent }, 'restore', restore, signal)
  }

  async prepare(spec: MachineSpec, count: number, signal: AbortSignal): Promise<void> {
    const { host, driverVersion } = await this.#prepare()
    const digest = await host.agents.current()
    const oci = ociSpec(spec, `${driverVersion}+${digest}`)
    await this.#slots.want(specKey(oci), { spec, oci, agent: { digest } }, count, signal)
  }

  async adopt(signal: AbortSignal): Promise<{ machines: Machine[]; lost: MachineExit[] }> {
    const { host, facts } = await this.#prepare()
    const places = { machines: this.#machinesDirectory, slots: this.#slotsDirectory }
    const { adopted, lost } = await adoptMachines(host, places, signal)
    const machines: Machine[] = []
    await Promise.all(
      adopted.map(async ({ container, record }) => {
        try {
          const link = await this.#attach(container, signal)
          // The guest holds its processes since before it was frozen, so that none of them went on meanwhile.
          const frozen = record.operation === 'freeze'
          if (frozen) await container.pause(signal)
          machines.push(this.#keep(new GvisorMachine({ container, record, link, frozen, driver: facts })))
        } catch (thrown) {
          signal.throwIfAborted()
          await container.destroy()
          const message = `its guest did not answer after the server came back: ${IceboxError.from(thrown).message}`
          lost.push({ execution: record.execution, reason: 'Crashed', message })
        }
      }),
    )
    return { machines, lost }
  }

  async close(): Promise<void> {
    await this.#slots.close()
    for (const machine of this.#machines) machine.release()
    this.#machines.clear()
    const { host } = (await this.#prepared?.catch(() => undefined)) ?? {}
    if (!host || (await readdir(this.#machinesDirectory)).length > 0) return
    for (const directory of [this.#machinesDirectory, this.#slotsDirectory, host.roots])
      await rmdir(directory).catch(() => {})
    await host.cgroups.removeParent()
  }

  #prepare(): Promise<Prepared> {
    this.#prepared ??= this.#prepareHost().catch((thrown) => {
      this.#prepared = undefined
      throw thrown
    })
    return this.#prepared
  }

  async #prepareHost(): Promise<Prepared> {
    const { runsc, guest, dataDirectory, runDirectory, imagePath } = this.#config
    const bundles = join(dataDirectory, 'bundles')
    const tmp = join(dataDirectory, 'tmp')
    const roots = join(runDirectory, 'runsc')
    for (const directory of [bundles, tmp, roots, this.#machinesDirectory, this.#slotsDirectory])
      await mkdir(directory, { recursive: true, mode: 0o700 })
    const [cgroups, identity, features, bootId, direct] = await Promise.all([
      CgroupTree.open(join('/icebox', basename(runDirectory))),
      runscIdentity(runsc, AbortSignal.timeout(ATTACH_MS)),
      cpuFeatures(),
      readBootId(),
      takesDirect(tmp),
    ])
    const agents = new Agents(join(dataDirectory, 'agents'), guest)
    return {
      host: { runsc, cgroups, agents, bundles, roots, imagePath, direct },
      driverVersion: identity.version,
      facts: { name: this.name, ...identity, flags: FLAGS, cpuFeatures: features },
      bootId,
    }
  }

  async #createSlot(id: string, plan: Plan, signal: AbortSignal): Promise<Container> {
    const { host } = await this.#prepare()
    const directory = join(this.#slotsDirectory, id)
    await mkdir(directory, { mode: 0o700 })
    try {
      return await createContainer(host, id, directory, plan, signal)
    } catch (thrown) {
      await destroyContainer(host, id, directory)
      throw thrown
    }
  }

  /** From nothing, or from a slot, to a machine whose agent answers. On any failure nothing is left. */
  async #run(
    execution: ExecutionId,
    what: Omit<Plan, 'oci'>,
    operation: 'boot' | 'restore',
    go: (container: Container) => Promise<void>,
    signal: AbortSignal,
  ): Promise<Machine> {
    const { host, driverVersion, facts, bootId } = await this.#prepare()
    const plan: Plan = { ...what, oci: ociSpec(what.spec, `${driverVersion}+${what.agent.digest}`) }
    const directory = join(this.#machinesDirectory, execution)
    const record: MachineRecord = {
      version: 1,
      execution,
      container: execution,
      spec: { imageDigest: plan.spec.imageDigest, size: plan.spec.size },
      agent: plan.agent.digest,
      bootId,
      operation,
    }
    const machine = await this.#turns.run(async () => {
      // What is there belongs to another call, which a failure of this one must not touch.
      await mkdir(directory, { mode: 0o700 }).catch((thrown: unknown) => {
        throw new IceboxError('AlreadyExists', `the execution ${execution} is there already`, { cause: thrown })
      })
      const slot = plan.files ? undefined : await this.#slots.take(specKey(plan.oci))
      let container = slot?.movedTo(directory)
      try {
        if (slot && container) {
          await writeRecord(slot.directory, { ...record, container: slot.id, process: slot.process })
          await rename(slot.directory, directory)
        } else {
          await writeRecord(directory, record)
          container = await createContainer(host, execution, directory, plan, signal)
          await writeRecord(directory, { ...record, process: container.process })
        }
        await go(container)
        const link = await this.#attach(container, signal)
        const { operation: _, ...settled } = { ...record, container: container.id, process: container.process }
        await writeRecord(directory, settled)
        return new GvisorMachine({ container, record: settled, link, frozen: false, driver: facts })
      } catch (thrown) {
        await destroyContainer(host, slot?.id ?? execution, directory)
        if (slot) await destroyContainer(host, slot.id, slot.directory)
        throw IceboxError.from(thrown)
      }
    }, signal)
    return this.#keep(machine)
  }

  #attach(container: Container, signal: AbortSignal): ReturnType<typeof attachLink> {
    return attachLink(
      { in: container.in, out: container.out },
      AbortSignal.any([signal, AbortSignal.timeout(ATTACH_MS)]),
    )
  }

  #keep(machine: GvisorMachine): GvisorMachine {
    this.#machines.add(machine)
    void machine.exited.then(() => this.#machines.delete(machine))
    return machine
  }
}

/** Sandboxes by gVisor's runsc. */
export const gvisorDriver = (config: GvisorConfig): Driver => new GvisorDriver(config)
