import { totalmem } from 'node:os'
import { memoryLimit } from './memory-groups.ts'

const GIB = 1024 ** 3
const SHARE = 4
const LEAST = GIB
const MOST = 8 * GIB
const EXCLUDE_ENVIRONMENT = '--report-exclude-env'

/** Bytes of JavaScript heap for a server: a quarter of the memory, 1 to 8 GiB, and never more than half of it. */
export const heapBytes = (memory: number): number =>
  Math.floor(Math.min(memory / 2, MOST, Math.max(LEAST, memory / SHARE)))

/** Memory of this machine, or of the control groups that this process is in where that is less. */
const memoryBytes = (): number => Math.min(totalmem(), memoryLimit())

/** Whether somebody has chosen a size in the environment, which flags would overrule. */
const isHeapChosen = (options: string | undefined): boolean =>
  options !== undefined &&
  ['max-old-space-size', 'max-heap-size'].some((name) => options.replaceAll('_', '-').includes(name))

/** What a process that serves is started with besides its own words. Reports of crashes never hold the environment, which has secrets. */
export function nodeFlags(): string[] {
  const heap = isHeapChosen(process.env.NODE_OPTIONS)
    ? []
    : [`--max-old-space-size=${Math.floor(heapBytes(memoryBytes()) / 1024 ** 2)}`]
  return [EXCLUDE_ENVIRONMENT, ...heap]
}

/** Has this process the flags: it becomes itself anew when it has not, under the same number. What it was started with wins. */
export function requireNodeFlags(): void {
  if (process.execArgv.includes(EXCLUDE_ENVIRONMENT) || process.execve === undefined) return
  const words = [process.execPath, ...nodeFlags(), ...process.execArgv, ...process.argv.slice(1)]
  process.execve(process.execPath, words, process.env)
}
