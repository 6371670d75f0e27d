import { rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Limits } from '@icebox/control'
import { protectFromOom, type Report, stepReport } from '@icebox/node'
import { openIcebox, type Reach, type Sources } from '../compose.ts'
import { interruption } from '../interrupt.ts'
import { note, paint, print, printJson, printStyled } from '../output.ts'
import { startTime } from '../process.ts'
import { logText, ServerLog } from '../server-log.ts'
import { bootId } from './deaths.ts'
import { requireNoSupervisor } from './one-server.ts'
import { restarter } from './supervision.ts'

export interface UpOptions {
  dataDirectory: string
  reach: Reach
  sources: Sources
  /** Whether the template `base` is made where there is none. */
  base: boolean
  /** Whether what no record claims is removed, instead of refusing to start beside it. */
  forget: boolean
  json: boolean
  /** Other than the defaults. */
  limits?: { file: string; values: Limits }
}

/** Where a server that runs says where it is; the CLI and the SDK read it. */
export const serverFile = (dataDirectory: string): string => join(dataDirectory, 'server.json')

/** Longest that pausing all sandboxes at the end may take, milliseconds. */
const CLOSE_DEADLINE_MS = 900_000
const LOG_EVERY_MS = 200

/** Set-up steps, where there is something to do: what is there already needs no line. */
export function setUpReport(json: boolean): Report {
  const report = stepReport(process.stderr)
  return (event) => {
    if (!json && event.kind !== 'present') report(event)
  }
}

/** Serves until it is told to end. Ctrl-C and SIGTERM pause all sandboxes, as `icebox down` does. */
export async function serve({ dataDirectory, reach, sources, base, forget, limits, json }: UpOptions): Promise<void> {
  if (restarter() !== 'icebox') await requireNoSupervisor(dataDirectory)
  const { promise: told, resolve: tell } = Promise.withResolvers<'pause' | 'keep' | 'kill'>()
  const stop = interruption()
  stop.addEventListener('abort', () => tell('pause'), { once: true })
  const log = await ServerLog.fromNow(join(dataDirectory, 'server.log'))
  protectFromOom()
  const server = await openIcebox(
    {
      dataDirectory,
      reach,
      sources,
      base,
      forget,
      report: setUpReport(json),
      onShutdown: tell,
      ...(limits === undefined ? {} : { limits: limits.values }),
    },
    stop,
  )
  const file = serverFile(dataDirectory)
  const said = {
    ...{ url: server.localUrl, publicUrl: server.url, pid: process.pid, restartedBy: restarter() },
    ...{ startedAt: new Date().toISOString(), startTime: await startTime(process.pid), boot: await bootId() },
  }
  await replaceServerFile(file, said)
  const { pid, restartedBy } = said
  announce({ ...server, dataDirectory, pid, restartedBy, logFile: log.path }, json)
  const show = async () => {
    for (const line of await log.more()) if (!json) printStyled(logText(line))
  }
  const showing = setInterval(() => void show(), LOG_EVERY_MS)
  const mode = await told
  if (!json && mode === 'pause') note('pausing all sandboxes; a second Ctrl-C leaves them running')
  // However it ends from here on, it was told to: nobody starts it again.
  await replaceServerFile(file, { ...said, ending: true }).catch(() => undefined)
  try {
    await server.close(mode, AbortSignal.timeout(CLOSE_DEADLINE_MS))
    await rm(file, { force: true })
  } finally {
    clearInterval(showing)
    await show()
  }
}

async function replaceServerFile(file: string, said: object): Promise<void> {
  await writeFile(`${file}.part`, `${JSON.stringify(said)}\n`, { mode: 0o600 })
  await rename(`${file}.part`, file)
}

export interface Running {
  url: string
  pid: number
  /** Who starts it again when it dies; undefined: nobody. */
  restartedBy: 'icebox' | 'systemd' | undefined
  driver: string
  dataDirectory: string
  keyFile: string
  logFile: string
}

export function announce(
  { url, pid, restartedBy, driver, dataDirectory, keyFile, logFile }: Running,
  json: boolean,
): void {
  if (json) {
    printJson({ url, pid, restartedBy: restartedBy ?? null, driver, dataDirectory, keyFile, logFile })
    return
  }
  printStyled(`${paint('bold', 'icebox is up')} at ${paint('cyan', url)}`)
  print(`  key     ${keyFile}\n  driver  ${driver}\n  data    ${dataDirectory}\n  log     ${logFile}`)
  if (restartedBy === undefined) print('  death   nobody starts it again: `icebox up -d` and systemd do')
}
