import { rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Limits } from '@icebox/control'
import { type Report, stepReport } from '@icebox/node'
import { openIcebox, type Reach } from '../compose.ts'
import { interruption } from '../interrupt.ts'
import { note, paint, print, printJson } from '../output.ts'
import { logText, ServerLog } from '../server-log.ts'

export interface UpOptions {
  dataDirectory: string
  reach: Reach
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
export async function serve({ dataDirectory, reach, base, forget, limits, json }: UpOptions): Promise<void> {
  const { promise: told, resolve: tell } = Promise.withResolvers<'pause' | 'keep' | 'kill'>()
  const stop = interruption()
  stop.addEventListener('abort', () => tell('pause'), { once: true })
  const log = await ServerLog.fromNow(join(dataDirectory, 'server.log'))
  const server = await openIcebox(
    {
      ...reach,
      dataDirectory,
      base,
      forget,
      report: setUpReport(json),
      onShutdown: tell,
      ...(limits === undefined ? {} : { limits: limits.values }),
    },
    stop,
  )
  const file = serverFile(dataDirectory)
  await writeFile(
    `${file}.part`,
    `${JSON.stringify({ url: server.localUrl, publicUrl: server.url, pid: process.pid })}\n`,
    { mode: 0o600 },
  )
  await rename(`${file}.part`, file)
  announce({ ...server, dataDirectory, pid: process.pid, logFile: log.path }, json)
  const show = async () => {
    for (const line of await log.more()) if (!json) print(logText(line))
  }
  const showing = setInterval(() => void show(), LOG_EVERY_MS)
  const mode = await told
  if (!json && mode === 'pause') note('pausing all sandboxes; a second Ctrl-C leaves them running')
  try {
    await server.close(mode, AbortSignal.timeout(CLOSE_DEADLINE_MS))
  } finally {
    clearInterval(showing)
    await rm(file, { force: true })
    await show()
  }
}

export interface Running {
  url: string
  pid: number
  driver: string
  dataDirectory: string
  keyFile: string
  logFile: string
}

export function announce({ url, pid, driver, dataDirectory, keyFile, logFile }: Running, json: boolean): void {
  if (json) {
    printJson({ url, pid, driver, dataDirectory, keyFile, logFile })
    return
  }
  print(`${paint('bold', 'icebox is up')} at ${paint('cyan', url)}`)
  print(`  key     ${keyFile}\n  driver  ${driver}\n  data    ${dataDirectory}\n  log     ${logFile}`)
}
