import { readdir, readFile, readlink } from 'node:fs/promises'
import { z } from 'zod'

/** A process that cannot be mistaken for a later one with the same number. */
export const ProcessIdentity = z.object({
  pid: z.int().min(2),
  /** Clock ticks since the host's boot (field 22 of `/proc/<pid>/stat`). */
  startTime: z.int(),
})
export type ProcessIdentity = z.infer<typeof ProcessIdentity>

/** A random id that every boot of the host draws anew. */
export const readBootId = async (): Promise<string> =>
  (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()

/** Undefined when there is no such process, or only what its parent has not collected yet. */
export async function identify(pid: number): Promise<ProcessIdentity | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  // The second field, the name, may hold anything, parentheses too.
  const [state = '', ...rest] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  if (state === '' || state === 'Z' || state === 'X') return undefined
  return { pid, startTime: Number(rest[18]) }
}

export async function isAlive({ pid, startTime }: ProcessIdentity): Promise<boolean> {
  return (await identify(pid))?.startTime === startTime
}

/** SIGKILL, if it is still the same process. */
export async function killProcess(identity: ProcessIdentity): Promise<void> {
  if (!(await isAlive(identity))) return
  try {
    process.kill(identity.pid, 'SIGKILL')
  } catch {
    // It ended between the look and the signal.
  }
}

/** Whether the process has a file in the directory open. */
export async function hasOpen({ pid }: ProcessIdentity, directory: string): Promise<boolean> {
  const descriptors = await readdir(`/proc/${pid}/fd`).catch(() => [])
  const targets = await Promise.all(descriptors.map((name) => readlink(`/proc/${pid}/fd/${name}`).catch(() => '')))
  return targets.some((target) => target.startsWith(`${directory}/`))
}

export interface ListedProcess {
  identity: ProcessIdentity
  arguments: string[]
}

/** The processes of the host that have an argument which begins with `prefix`. */
export async function findProcesses(prefix: string): Promise<ListedProcess[]> {
  const found: ListedProcess[] = []
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry)) continue
    const text = await readFile(`/proc/${entry}/cmdline`, 'utf8').catch(() => '')
    const words = text.split('\0')
    if (!words.some((word) => word.startsWith(prefix))) continue
    const identity = await identify(Number(entry))
    if (identity) found.push({ identity, arguments: words })
  }
  return found
}
