import { mkdir, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { type ExecutionId, IceboxError, isError, type MachineSpec } from '@icebox/model'
import { attachLink } from '../../link/attach.ts'
import type { GuestLink } from '../../link/link.ts'
import { type Container, destroyContainer } from './container.ts'
import { createContainer, type Plan } from './create.ts'
import type { Host } from './host.ts'
import { lastWords } from './log.ts'
import { GvisorMachine } from './machine.ts'
import { type MachineRecord, writeRecord } from './record.ts'
import { ociSpec } from './spec.ts'

const ATTACH_MS = 30_000

/** What a machine of this spec is made of, with this driver and this agent in it. */
export const planOf = (host: Host, spec: MachineSpec, agent: Plan['agent'], files?: string): Plan => ({
  spec: { imageDigest: spec.imageDigest, size: spec.size },
  oci: ociSpec(spec, `${host.facts.version}+${agent.digest}`),
  agent,
  ...(files !== undefined && { files }),
})

export function attach(container: Container, signal?: AbortSignal): Promise<GuestLink> {
  const deadline = AbortSignal.timeout(ATTACH_MS)
  return attachLink(
    { in: container.in, out: container.out },
    signal === undefined ? deadline : AbortSignal.any([signal, deadline]),
  )
}

/** Of a sandbox that ended by itself, how it ended tells more than what was then missed. */
async function explained(container: Container, { size }: MachineSpec, thrown: unknown): Promise<unknown> {
  if (await container.isAlive()) return thrown
  if ((await container.cgroup.oomKills()) > 0)
    return new IceboxError('NoMemory', `the sandbox needs more than its ${size.memoryMiB} MiB of memory to start`, {
      cause: thrown,
    })
  const said = await lastWords(container.log)
  return said
    ? new IceboxError('GuestFailed', `the sandbox ended while it started: ${said}`, { cause: thrown })
    : thrown
}

export interface Launch {
  execution: ExecutionId
  plan: Plan
  operation: 'boot' | 'restore'
  /** A container of the same spec made ahead. It is used up, whatever becomes of it. */
  takeSlot(): Promise<Container | undefined>
  /** Makes the container run: start or restore. */
  go(container: Container): Promise<void>
}

/**
 * From nothing, or from a slot, to a machine whose agent answers. On any failure nothing is left. Throws AlreadyExists, NoMemory,
 * NoSpace, GuestFailed, DeadlineExceeded, Internal.
 */
export async function launch(host: Host, what: Launch, signal: AbortSignal): Promise<GvisorMachine> {
  const { execution, plan, operation } = what
  const directory = join(host.machines, execution)
  // What is there belongs to another call, which a failure of this one must not touch.
  await mkdir(directory, { mode: 0o700 }).catch((thrown: unknown) => {
    throw new IceboxError('AlreadyExists', `the execution ${execution} is there already`, { cause: thrown })
  })
  let slot: Container | undefined
  let container: Container | undefined
  try {
    slot = await what.takeSlot()
    const record: MachineRecord = {
      version: 1,
      execution,
      container: slot?.id ?? execution,
      spec: plan.spec,
      agent: plan.agent.digest,
      bootId: host.bootId,
      ...(slot && { process: slot.process }),
    }
    await writeRecord(slot?.directory ?? directory, { ...record, operation })
    if (slot) {
      await rename(slot.directory, directory)
      container = slot.movedTo(directory)
    } else {
      container = await createContainer(host, execution, directory, plan, signal)
      record.process = container.process
      await writeRecord(directory, { ...record, operation })
    }
    await what.go(container)
    const link = await attach(container, signal)
    await writeRecord(directory, record)
    return new GvisorMachine({ container, record, link, frozen: false, driver: host.facts })
  } catch (thrown) {
    const failure = container ? await explained(container, plan.spec, thrown) : thrown
    // It may have been dying since before it was taken, which says nothing about what was to run in it.
    const slotDied = slot !== undefined && !(await slot.isAlive()) && !isError(failure, 'NoMemory')
    await destroyContainer(host, slot?.id ?? execution, directory)
    if (slot) await destroyContainer(host, slot.id, slot.directory)
    if (!slotDied || signal.aborted) throw failure
    return launch(host, { ...what, takeSlot: async () => undefined }, signal)
  }
}
