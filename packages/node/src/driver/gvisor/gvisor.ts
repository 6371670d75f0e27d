import { mkdir, readdir, rmdir } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { type ExecutionId, IceboxError, type MachineExit, type MachineSpec, type SnapshotKind } from '@icebox/model'
import { missingControllers } from '../../cgroup/layout.ts'
import { cgroupMounts } from '../../cgroup/mounts.ts'
import { LateLink } from '../../link/late-link.ts'
import type { GuestLink } from '../../link/link.ts'
import { runscBuild } from '../../setup/runsc.ts'
import { soon } from '../../soon.ts'
import { Turns } from '../../turns.ts'
import type { Capabilities, Driver, DriverFacts, Machine, Probe } from '../driver.ts'
import { type Adopted, adoptMachines } from './adopt.ts'
import { type Container, destroyContainer } from './container.ts'
import { createContainer, type Plan } from './create.ts'
import { checkRunDirectory, type GvisorConfig, type Host, prepareHost } from './host.ts'
import { attach, type Launch, launch, planOf } from './launch.ts'
import { GvisorMachine, readFacts } from './machine.ts'
import { Slots } from './slots.ts'
import { specKey } from './spec.ts'
import { runscIdentity } from './version.ts'

/** Milliseconds that adopting waits for a guest to answer, before it goes on without. */
const PROMPT_MS = 2000
/** Slots are refilled when nothing was launched for so long: the first exec in a new machine is not to wait for them. */
const QUIET_MS = 200

class GvisorDriver implements Driver {
  readonly name = 'gvisor'
  readonly capabilities: Capabilities = { memorySnapshots: true, incremental: false, lazyRestore: false }
  readonly #config: GvisorConfig
  // A create or restore waits for the kernel half of its time. Measured with 20 on two cores: 4 to 20 at once take equally long.
  readonly #turns = new Turns(4 * availableParallelism(), QUIET_MS)
  readonly #slots: Slots<Plan>
  readonly #machines = new Set<GvisorMachine>()
  #prepared: Promise<Host> | undefined

  constructor(config: GvisorConfig) {
    checkRunDirectory(config.runDirectory)
    this.#config = config
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
    return (await this.#host()).facts
  }

  async boot(execution: ExecutionId, spec: MachineSpec, signal: AbortSignal): Promise<Machine> {
    const host = await this.#host()
    const plan = planOf(host, spec, { digest: await host.agents.current() })
    return this.#launch(
      host,
      { execution, plan, operation: 'boot', go: (container) => container.start(signal) },
      signal,
    )
  }

  async restore(
    execution: ExecutionId,
    saved: { directory: string; kind: SnapshotKind },
    spec: MachineSpec,
    signal: AbortSignal,
  ): Promise<Machine> {
    const host = await this.#host()
    const { directory, kind } = saved
    const facts = await readFacts(directory, kind)
    // Memory goes on with the agent that is in it, files boot with the present one.
    const agent =
      kind === 'memory' ? { digest: facts.agent, file: facts.agentFile } : { digest: await host.agents.current() }
    const plan = planOf(host, spec, agent, kind === 'memory' ? undefined : directory)
    const go = (container: Container) =>
      kind === 'memory' ? container.restore(directory, signal) : container.start(signal)
    return this.#launch(host, { execution, plan, operation: 'restore', go }, signal)
  }

  async restoreBytes({ directory, kind }: { directory: string; kind: SnapshotKind }): Promise<number | undefined> {
    // The memory comes back as memory; the upper layer of the disk is written into the bundle again.
    return (await readFacts(directory, kind)).diskBytes
  }

  async prepare(spec: MachineSpec, count: number, signal: AbortSignal): Promise<void> {
    const host = await this.#host()
    const plan = planOf(host, spec, { digest: await host.agents.current() })
    await this.#slots.want(specKey(plan.oci), plan, count, signal)
  }

  async adopt(signal: AbortSignal): Promise<{ machines: Machine[]; lost: MachineExit[] }> {
    const host = await this.#host()
    const { adopted, lost } = await adoptMachines(host, signal)
    const machines: Machine[] = []
    await Promise.all(
      adopted.map(async (found) => {
        try {
          machines.push(this.#keep(await this.#reattach(host, found, signal)))
        } catch (thrown) {
          signal.throwIfAborted()
          // What cannot be taken away now the next adoption finds again.
          const left = await found.container.destroy().catch((failure: unknown) => `; what is left: ${failure}`)
          const message = `its guest did not answer after the server came back: ${IceboxError.from(thrown).message}`
          lost.push({ execution: found.record.execution, reason: 'Crashed', message: `${message}${left ?? ''}` })
        }
      }),
    )
    return { machines, lost }
  }

  async close(): Promise<void> {
    await this.#slots.close()
    for (const machine of this.#machines) machine.release()
    this.#machines.clear()
    const host = await this.#prepared?.catch(() => undefined)
    if (!host || (await readdir(host.machines)).length > 0) return
    for (const directory of [host.machines, host.slots, host.roots]) await rmdir(directory).catch(() => {})
    await host.cgroups.removeParent()
  }

  #host(): Promise<Host> {
    this.#prepared ??= prepareHost(this.#config).catch((thrown) => {
      this.#prepared = undefined
      throw thrown
    })
    return this.#prepared
  }

  async #createSlot(id: string, plan: Plan, signal: AbortSignal): Promise<Container> {
    const host = await this.#host()
    const directory = join(host.slots, id)
    await mkdir(directory, { mode: 0o700 })
    try {
      return await createContainer(host, id, directory, plan, signal)
    } catch (thrown) {
      await destroyContainer(host, id, directory)
      throw thrown
    }
  }

  async #launch(host: Host, what: Omit<Launch, 'takeSlot'>, signal: AbortSignal): Promise<Machine> {
    const { plan } = what
    // A slot's disk is empty.
    const takeSlot = async () => (plan.files === undefined ? this.#slots.take(specKey(plan.oci)) : undefined)
    try {
      return this.#keep(await this.#turns.run(() => launch(host, { ...what, takeSlot }, signal), signal))
    } catch (thrown) {
      throw IceboxError.from(thrown)
    }
  }

  async #reattach(host: Host, { container, record }: Adopted, signal: AbortSignal): Promise<GvisorMachine> {
    // The guest holds its processes since before it was frozen, so that none of them went on meanwhile.
    const frozen = record.operation === 'freeze'
    const link = frozen ? await attach(container, signal) : await this.#attachSoon(container)
    if (frozen) await container.pause(signal)
    return new GvisorMachine({ container, record, link, frozen, driver: host.facts })
  }

  /** Whoever owns a sandbox can stop its agent: the server's start does not wait for that, nor does its end break it off. */
  async #attachSoon(container: Container): Promise<GuestLink> {
    const attaching = attach(container)
    return (await soon(attaching, PROMPT_MS)) ?? new LateLink(attaching)
  }

  #keep(machine: GvisorMachine): GvisorMachine {
    this.#machines.add(machine)
    void machine.exited.then(() => this.#machines.delete(machine))
    return machine
  }
}

/** Sandboxes by gVisor's runsc. */
export const gvisorDriver = (config: GvisorConfig): Driver => new GvisorDriver(config)
