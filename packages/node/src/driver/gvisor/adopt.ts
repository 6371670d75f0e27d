import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { isId, type MachineExit } from '@icebox/model'
import { removeNetwork } from '../../network/namespace.ts'
import { Container, destroyContainer } from './container.ts'
import type { Host } from './host.ts'
import { lastWords } from './log.ts'
import { processesByContainer } from './own.ts'
import { isAlive, killProcess, type ListedProcess } from './process.ts'
import { type MachineRecord, readRecord } from './record.ts'

/** How long a command that the last server left under way may take to end by itself. */
const HELPER_MS = 10_000

/** A machine that runs. It is to be frozen again when its record says that it was being frozen. */
export interface Adopted {
  container: Container
  record: MachineRecord
}

/** The ids in it. A name that is none was not given by this driver: nothing is done with it, least of all a path made of it. */
const list = async (directory: string) => (await readdir(directory).catch(() => [])).filter(isId)

/** Commands, unlike the sandbox and its gofer, end by themselves; what they change is not to be looked at before. */
async function settleHelpers(processes: ListedProcess[], signal: AbortSignal): Promise<void> {
  const isHelper = ({ arguments: [name = ''] }: ListedProcess) => !['runsc-sandbox', 'runsc-gofer'].includes(name)
  const end = performance.now() + HELPER_MS
  for (const { identity } of processes.filter(isHelper)) {
    while (performance.now() < end && (await isAlive(identity))) await sleep(20, undefined, { signal })
    await killProcess(identity)
  }
}

/** The machine's container if it lives, how it ended if it was somebody's, nothing when nobody has it yet or wants it any more. */
async function survivor(
  host: Host,
  record: MachineRecord,
  directory: string,
): Promise<Container | MachineExit | undefined> {
  const { execution, operation, process, container } = record
  if (!process || (operation && operation !== 'freeze')) return undefined
  if (record.bootId !== host.bootId)
    return { execution, reason: 'HostRestarted', message: 'the host was restarted while it ran' }
  if (await isAlive(process)) return new Container(host, container, directory, process)
  const killed = (await host.cgroups.find(container).oomKills()) > 0
  const said = await lastWords(join(directory, 'log'))
  if (killed)
    return {
      execution,
      reason: 'OutOfMemory',
      message: `it used more than its ${record.spec.size.memoryMiB} MiB of memory`,
    }
  return { execution, reason: 'Crashed', message: `it ended while no server ran${said && `: ${said}`}` }
}

/** Of a directory whose record cannot be read, the container's name is not known: what bears that is removed as a stray. */
async function removeRunDirectory(directory: string): Promise<void> {
  await removeNetwork(join(directory, 'network'))
  await rm(directory, { recursive: true, force: true })
}

/**
 * Finds the machines that outlived the last server and removes everything else that is proven ours: what was half made, what
 * died, what belongs to nobody. It may be interrupted anywhere and run again.
 */
export async function adoptMachines(
  host: Host,
  signal: AbortSignal,
): Promise<{ adopted: Adopted[]; lost: MachineExit[] }> {
  const processes = await processesByContainer(host)
  const adopted: Adopted[] = []
  const lost: MachineExit[] = []
  const kept = new Set<string>()
  const removed = async (id: string, directory?: string) => {
    for (const { identity } of processes.get(id) ?? []) await killProcess(identity)
    // What cannot be removed now, such as a process that waits for a dead disk, must not keep the others from being adopted.
    await destroyContainer(host, id, directory).catch(() => {})
  }

  for (const name of await list(host.machines)) {
    const directory = join(host.machines, name)
    const record = await readRecord(directory)
    const sandbox = record && (await survivor(host, record, directory))
    if (record && sandbox instanceof Container) {
      try {
        await settleHelpers(processes.get(record.container) ?? [], signal)
        // Stopped on purpose or not: only a guest that runs can answer.
        if ((await sandbox.status()) === 'paused') await sandbox.resume(signal)
        adopted.push({ container: sandbox, record })
        kept.add(record.container)
        continue
      } catch (thrown) {
        signal.throwIfAborted()
        lost.push({ execution: record.execution, reason: 'Crashed', message: `it cannot be taken over: ${thrown}` })
      }
    } else if (sandbox && 'reason' in sandbox) lost.push(sandbox)
    if (record) await removed(record.container, directory)
    else await removeRunDirectory(directory).catch(() => {})
  }
  for (const name of await list(host.slots)) await removed(name, join(host.slots, name))
  const strays = new Set([
    ...processes.keys(),
    ...(await list(host.roots)),
    ...(await list(host.bundles)),
    ...(await host.cgroups.list()).filter(isId),
  ])
  for (const id of strays) if (!kept.has(id)) await removed(id)
  return { adopted, lost }
}
