import { readFile } from 'node:fs/promises'
import { totalmem } from 'node:os'
import type { Ceiling } from './layout.ts'

const GIB = 2 ** 30
/** Of memory and of processes, what the host keeps for the server and everything else that is not a sandbox. */
const RESERVE_SHARE = 1 / 8
const RESERVE_BYTES = { least: GIB, most: 8 * GIB }

const limitOf = async (name: string) => Number(await readFile(`/proc/sys/kernel/${name}`, 'utf8'))

/** Memory left to all sandboxes together: of little memory, half. */
export function memoryCeiling(total: number): number {
  const reserve = Math.min(Math.max(total * RESERVE_SHARE, RESERVE_BYTES.least), RESERVE_BYTES.most, total / 2)
  return Math.floor(total - reserve)
}

/** What all sandboxes of the host may use together, so that a host full of them still has room to serve and to be logged into. */
export async function sandboxCeiling(): Promise<Ceiling> {
  const most = Math.min(...(await Promise.all(['pid_max', 'threads-max'].map(limitOf))))
  return { memoryBytes: memoryCeiling(totalmem()), pids: Math.floor(most * (1 - RESERVE_SHARE)) }
}
