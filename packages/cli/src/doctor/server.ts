import type { DeathCause } from '@icebox/control'
import { duration } from '../output.ts'
import { isRunning, readDeaths, readServerFile } from '../up/deaths.ts'
import { supervisorOf } from '../up/supervision.ts'
import type { Check } from './diagnosis.ts'

const DAY_MS = 86_400_000

const REMEDIES: Record<DeathCause, string> = {
  OutOfHeap:
    'Report what was asked of it with crash-report.json of the data directory; NODE_OPTIONS=--max-old-space-size=MIB gives it more.',
  OutOfMemory: 'Give the machine more memory, or run fewer and smaller sandboxes on it.',
  Killed: 'See `dmesg` whether the kernel killed it for want of memory, and who else may have.',
  Crashed: 'Report it with crash-report.json and the end of server.log of the data directory.',
  Exception: 'Report it with crash-report.json of the data directory.',
  Failed: 'See the end of server.log of the data directory.',
  HostRestarted: 'End the server before the host (`icebox down`, or the unit of systemd): then sandboxes are saved.',
  Unknown: 'Start it with `icebox up -d` or systemd, which see what it dies of; `dmesg` may say more.',
}

/** Who starts the server again when it dies. */
async function restarts(dataDirectory: string): Promise<Check> {
  const check = {
    id: 'server',
    group: 'server',
    required: false,
    purpose: 'serves, and comes back when it dies',
  } as const
  const [server, supervisor] = [await readServerFile(dataDirectory), await supervisorOf(dataDirectory)]
  const runs = server !== undefined && (await isRunning(server))
  if (!runs && supervisor !== undefined)
    return {
      ...check,
      status: 'warning',
      found: `has died; process ${supervisor.pid} starts it again`,
      remedy: 'Wait, or give it up with `icebox down`; server.log of the data directory says why it dies.',
    }
  if (server === undefined) return { ...check, status: 'info', found: 'does not run' }
  if (!runs)
    return {
      ...check,
      status: 'warning',
      found: `process ${server.pid} has died, and nobody starts it again`,
      remedy: 'Start it with `icebox up -d`: it takes over the sandboxes that run, and says what it can find out.',
    }
  if (supervisor !== undefined)
    return {
      ...check,
      status: 'ok',
      found: `process ${server.pid}, started again by process ${supervisor.pid} when it dies`,
    }
  if (server.restartedBy === 'systemd')
    return { ...check, status: 'ok', found: `process ${server.pid}, started again by systemd when it dies` }
  return {
    ...check,
    status: 'warning',
    found: `process ${server.pid}, which nobody starts again when it dies`,
    remedy: '`icebox down --keep`, then `icebox up -d`: sandboxes run on meanwhile.',
  }
}

async function deaths(dataDirectory: string): Promise<Check> {
  const check = {
    id: 'server-deaths',
    group: 'server',
    required: false,
    purpose: 'ends that nobody asked for',
  } as const
  const { counts, recent } = await readDeaths(dataDirectory)
  const last = recent.at(-1)
  if (last === undefined) return { ...check, status: 'ok', found: 'none' }
  const since = Date.now() - DAY_MS
  const lately = recent.filter(({ at }) => Date.parse(at) >= since).length
  const all = Object.values(counts).reduce((sum, count) => sum + count, 0)
  const ago = duration((Date.now() - Date.parse(last.at)) / 1000)
  const found = `${lately} in the last day, ${all} in all; the last ${ago} ago: ${last.cause}, ${last.message}`
  return lately === 0
    ? { ...check, status: 'info', found }
    : { ...check, status: 'warning', found, remedy: REMEDIES[last.cause] }
}

export const checkServer = async (dataDirectory: string): Promise<Check[]> => [
  await restarts(dataDirectory),
  await deaths(dataDirectory),
]
