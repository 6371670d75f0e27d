import { readFile } from 'node:fs/promises'
import { availableParallelism, release, totalmem } from 'node:os'
import { runscBuild } from '@icebox/node'

/** What figures depend on, without saying whose machine it is. */
export interface MachineFacts {
  cores: number
  cpu: string
  memoryMiB: number
  kernel: string
  runsc: string
  node: string
}

export async function machineFacts(): Promise<MachineFacts> {
  const cpuinfo = await readFile('/proc/cpuinfo', 'utf8')
  return {
    cores: availableParallelism(),
    cpu: /^model name\s*:\s*(.+)$/m.exec(cpuinfo)?.[1] ?? 'unknown',
    memoryMiB: Math.round(totalmem() / 2 ** 20),
    kernel: release(),
    runsc: (await runscBuild()).version,
    node: process.version,
  }
}
