import { type ChildProcess, spawn } from 'node:child_process'
import { appendFile, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { constants } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { startTime } from '../process.ts'
import { BackOff } from './back-off.ts'
import { crashOf, endOf, readServerFile, recordDeath, type Why } from './deaths.ts'
import { LASTING } from './lasting.ts'
import { kernelKills } from './memory-groups.ts'
import { nodeFlags } from './node-flags.ts'
import { SUPERVISOR_VARIABLE, supervisorFile } from './supervision.ts'

/** Started by `icebox up -d`: starts the server, and starts it again when it dies. `DATA WORD...`, the words being those of the server. */

const LOOK_MS = 50
/** Starts in a row that may fail, with a wait of a minute between the last ones. One that has answered begins anew. */
const FAILED_STARTS = 30
const WRONG_USAGE = 2

interface Run {
  pid: number
  /** It has answered. */
  served: boolean
  ranMs: number
  status: number | null
  signal: NodeJS.Signals | null
  /** Undefined when it was told to end. */
  death: Why | undefined
}

const [dataDirectory = '', ...words] = process.argv.slice(2)
const stopping = new AbortController()
let child: ChildProcess | undefined

for (const name of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const)
  process.on(name, () => {
    stopping.abort()
    // The server pauses its sandboxes; a second signal is passed on too, and has it leave them running.
    child?.kill('SIGTERM')
  })

async function runOnce(onServing: () => Promise<void>): Promise<Run> {
  const began = performance.now()
  const startedAt = new Date().toISOString()
  const kills = kernelKills()
  const server = spawn(process.execPath, [...nodeFlags(), ...words], {
    // Who ends the group of this process does not mean the server.
    detached: true,
    cwd: '/',
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, [SUPERVISOR_VARIABLE]: String(process.pid) },
  })
  child = server
  if (stopping.signal.aborted) server.kill('SIGTERM')
  const ended = new Promise<Pick<Run, 'status' | 'signal'> & { unstarted?: Error }>((resolve) => {
    // No process could be made, for want of memory say: there may be room later.
    server.once('error', (unstarted) => resolve({ status: 1, signal: null, unstarted }))
    server.once('exit', (code, by) => resolve({ status: code, signal: by }))
  })
  const pid = server.pid ?? 0
  let over = false
  let served = false
  const watching = (async () => {
    for (let isKnown = false; !over && !isKnown; await sleep(LOOK_MS)) {
      served = (await readServerFile(dataDirectory))?.pid === pid
      // A full disk may have room a moment later.
      if (served)
        isKnown = await onServing().then(
          () => true,
          () => false,
        )
    }
  })()
  const { status, signal, unstarted } = await ended
  over = true
  await watching
  child = undefined
  const last = await readServerFile(dataDirectory)
  const told = stopping.signal.aborted || status === 0 || (last?.pid === pid && last.ending === true)
  let death: Why | undefined
  if (unstarted !== undefined) death = { cause: 'Failed', message: `it could not be started: ${unstarted.message}` }
  else if (!told) death = (await crashOf(dataDirectory, pid, startedAt)) ?? endOf(status, signal, kernelKills() > kills)
  return { pid, served, ranMs: performance.now() - began, status, signal, death }
}

/** A line of the server's log. */
async function log(level: 'info' | 'error', event: string, facts: Record<string, unknown>): Promise<void> {
  const line = JSON.stringify({ level, time: new Date().toISOString(), event, ...facts })
  await appendFile(join(dataDirectory, 'server.log'), `${line}\n`, { mode: 0o600 }).catch(() => undefined)
}

/** Its server listens at the same port whenever it is started again, also when any was good at first. */
async function keepPort(): Promise<void> {
  const at = words.indexOf('--listen') + 1
  const listen = words[at]
  if (at === 0 || listen?.endsWith(':0') !== true) return
  const said: unknown = JSON.parse(await readFile(join(dataDirectory, 'server.json'), 'utf8'))
  if (typeof said === 'object' && said !== null && 'url' in said && typeof said.url === 'string')
    words[at] = `${listen.slice(0, -1)}${new URL(said.url).port}`
}

async function announce(): Promise<void> {
  const file = supervisorFile(dataDirectory)
  const said = { pid: process.pid, startTime: await startTime(process.pid) }
  await writeFile(`${file}.part`, JSON.stringify(said), { mode: 0o600 })
  await rename(`${file}.part`, file)
}

const statusOf = ({ status, signal }: Run): number => status ?? 128 + (signal === null ? 0 : constants.signals[signal])

async function supervise(): Promise<number> {
  const backOff = new BackOff()
  let hasServed = false
  let failedStarts = 0
  for (;;) {
    const run = await runOnce(async () => {
      // Not before: until then another server may have the data directory.
      hasServed = true
      await keepPort().catch(() => undefined)
      await announce()
    })
    const { death, pid, served, ranMs, status } = run
    if (death === undefined) return statusOf(run)
    failedStarts = served ? 0 : failedStarts + 1
    const isRefused = status === LASTING || status === WRONG_USAGE
    const isOver = !hasServed || isRefused || failedStarts >= FAILED_STARTS
    const restartMs = isOver ? undefined : backOff.after(served ? ranMs : 0)
    const facts = { cause: death.cause, message: death.message, ...(restartMs === undefined ? {} : { restartMs }) }
    // What never ran and says itself why it does not start is told to who starts it.
    if (hasServed || death.cause !== 'Failed') {
      const at = death.at ?? new Date().toISOString()
      const died = { at, pid, ranSeconds: Math.round(ranMs / 1000), ...facts }
      await recordDeath(dataDirectory, died).catch(() => undefined)
      await log('error', 'server.died', { pid, ...facts })
    }
    if (isOver || restartMs === undefined) return statusOf(run)
    await sleep(restartMs, undefined, { signal: stopping.signal }).catch(() => undefined)
    if (stopping.signal.aborted) return 0
  }
}

let status = 1
try {
  status = await supervise()
} finally {
  const file = supervisorFile(dataDirectory)
  const said = await readFile(file, 'utf8').catch(() => '')
  if (said.includes(`"pid":${process.pid},`)) await rm(file, { force: true })
}
process.exit(status)
