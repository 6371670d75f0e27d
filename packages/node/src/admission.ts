import { readFile } from 'node:fs/promises'
import { IceboxError } from '@icebox/model'

const MIB = 2 ** 20
/** Left to the host whatever is asked for: below it the kernel begins to reclaim what others need. */
const RESERVE = 256 * MIB
/** What a machine takes besides the memory it restores: sentry, gofer and page tables, measured at 20–30 MiB. */
const OVERHEAD = 32 * MIB

async function availableBytes(): Promise<number> {
  const text = await readFile('/proc/meminfo', 'utf8')
  const kib = /^MemAvailable:\s+(\d+) kB$/m.exec(text)?.[1]
  if (kib === undefined) throw new IceboxError('Internal', 'this kernel does not say how much memory is available')
  return Number(kib) * 1024
}

/**
 * Refuses work that cannot fit in memory before it begins. Memory that restores under way are about to take is counted, as
 * the kernel does not know of it yet. It is no promise: what runs already may grow at any time, up to its own limit.
 */
export class Admission {
  #promised = 0

  /** Throws `NoMemory` with the numbers, or runs the work with the memory set aside until it ends. */
  async memory<R>(bytes: number, what: string, work: () => Promise<R>): Promise<R> {
    const needed = bytes + OVERHEAD
    const available = (await availableBytes()) - RESERVE - this.#promised
    if (needed > available) {
      const mib = (value: number) => `${Math.max(0, Math.floor(value / MIB))} MiB`
      throw new IceboxError('NoMemory', `${what} needs about ${mib(needed)} of memory and ${mib(available)} can be had`)
    }
    this.#promised += needed
    try {
      return await work()
    } finally {
      this.#promised -= needed
    }
  }
}
