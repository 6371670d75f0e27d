import { readFile, readlink } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { startTime } from '../process.ts'

/** In the environment of a server: the pid of the supervisor that started it. */
export const SUPERVISOR_VARIABLE = 'ICEBOX_SUPERVISOR'

/** Where the supervisor of a data directory says that it is there. */
export const supervisorFile = (dataDirectory: string): string => join(dataDirectory, 'supervisor.json')

const Said = z.object({ pid: z.int().min(1), startTime: z.string() })

export interface Supervisor {
  pid: number
  runs(): Promise<boolean>
}

/**
 * The supervisor that a server of this data directory has or had, if that still runs. By its file alone it might be any process that
 * has its number since: so its start and its program are looked at too.
 */
export async function supervisorOf(dataDirectory: string): Promise<Supervisor | undefined> {
  const text = await readFile(supervisorFile(dataDirectory), 'utf8').catch(() => 'null')
  const said = Said.safeParse(parse(text))
  if (!said.success) return undefined
  const { pid } = said.data
  const runs = async () => (await startTime(pid)) === said.data.startTime
  if (!(await runs())) return undefined
  const program = await readlink(`/proc/${pid}/exe`).catch(() => undefined)
  const words = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
  const isOurs = program === (await readlink('/proc/self/exe')) && words.split('\0').includes(SUPERVISOR)
  return isOurs ? { pid, runs } : undefined
}

/** The program of a supervisor. */
export const SUPERVISOR = join(import.meta.dirname, 'supervisor.ts')

/** Who starts this server again when it dies. */
export function restarter(): 'icebox' | 'systemd' | undefined {
  if (process.env[SUPERVISOR_VARIABLE] === String(process.ppid)) return 'icebox'
  return process.env.SYSTEMD_EXEC_PID === String(process.pid) ? 'systemd' : undefined
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}
