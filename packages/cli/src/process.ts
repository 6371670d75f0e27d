import { readFile } from 'node:fs/promises'

/** When a process started, in the kernel's ticks since boot: with its pid, who it is. Undefined once it has ended. */
export const startTime = async (pid: number): Promise<string | undefined> => (await fieldsOf(pid))?.[19]

/** Undefined once it has ended. */
export async function parentOf(pid: number): Promise<number | undefined> {
  const parent = (await fieldsOf(pid))?.[1]
  return parent === undefined ? undefined : Number(parent)
}

/** From its state on; undefined once it has ended. */
async function fieldsOf(pid: number): Promise<string[] | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => undefined)
  // The name in parentheses may hold anything; state is the first field after it, the start time the twentieth.
  const fields = stat?.slice(stat.lastIndexOf(')') + 2).split(' ')
  // A zombie has ended; that nobody has asked for its status is no matter of ours.
  return fields?.[0] === 'Z' || fields?.[0] === 'X' ? undefined : fields
}
