import { spawn } from 'node:child_process'
import { type FileHandle, mkdir, open, readdir, readFile } from 'node:fs/promises'
import { constants } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { ensureRuntime } from '@icebox/node'
import { Icebox } from '@icebox/sdk'
import type { Reach, Sources } from '../compose.ts'
import { Refusal } from '../failure.ts'
import { interruption } from '../interrupt.ts'
import { parentOf } from '../process.ts'
import { ServerLog } from '../server-log.ts'
import { announce, serverFile, setUpReport, type UpOptions } from './foreground.ts'
import { requireNoSupervisor } from './one-server.ts'
import { SUPERVISOR, supervisorOf } from './supervision.ts'

/** Megabytes of heap: a supervisor waits. */
const SUPERVISOR_FLAGS = ['--max-old-space-size=64', '--max-semi-space-size=1']
const MAIN = join(import.meta.dirname, '../main.ts')
const EVERY_MS = 25
/** Longest that a start may take: it settles what a crash left and resumes what `down` paused. Milliseconds. */
const DEADLINE_MS = 330_000
/** Lines of the log that are shown when it does not start. */
const LAST_WORDS = 20

/**
 * Opens the log for what the server says where it cannot log any more, such as the last words of a crash. A directory that is
 * not empty and not ours is left as it is: the server will say so.
 */
async function openLog(dataDirectory: string): Promise<FileHandle | undefined> {
  await mkdir(dataDirectory, { recursive: true, mode: 0o700 })
  const entries = await readdir(dataDirectory)
  if (entries.length > 0 && !entries.includes('lock')) return undefined
  // What makes the directory one of Icebox, as the server does first; without it the log would be a foreign file there.
  await (await open(join(dataDirectory, 'lock'), 'a', 0o600)).close()
  return open(join(dataDirectory, 'server.log'), 'a', 0o600)
}

/** Starts the server as a process of its own, with a supervisor, and waits until it answers. Throws what it died of. */
export async function startDetached({
  dataDirectory,
  reach,
  sources,
  base,
  forget,
  limits,
  json,
}: UpOptions): Promise<void> {
  const stop = interruption()
  await requireNoSupervisor(dataDirectory)
  // Here, where somebody sees it: what has to be built first takes minutes.
  await ensureRuntime(setUpReport(json), stop)
  const log = await ServerLog.fromNow(join(dataDirectory, 'server.log'))
  const words = [
    ...[...SUPERVISOR_FLAGS, SUPERVISOR, dataDirectory, MAIN, 'up', '--json', '--data', dataDirectory],
    ...flagsOf(reach),
    ...sourceFlags(sources),
    ...(base ? [] : ['--no-base']),
    ...(forget ? ['--forget'] : []),
    ...(limits === undefined ? [] : ['--limits', limits.file]),
  ]
  const output = await openLog(dataDirectory)
  const child = spawn(process.execPath, words, {
    detached: true,
    cwd: '/',
    stdio: ['ignore', 'ignore', output?.fd ?? 'pipe'],
  })
  await output?.close()
  const said: Buffer[] = []
  child.stderr?.on('data', (piece: Buffer) => said.push(piece))
  const ended = Promise.withResolvers<string>()
  child.once('error', (error) => ended.resolve(error.message))
  child.once('close', (code, signal) =>
    ended.resolve(code === null || code > 128 ? `ended by ${signal ?? signalOf(code)}` : `ended with status ${code}`),
  )
  let how: string | undefined
  void ended.promise.then((text) => {
    how = text
  })
  const deadline = performance.now() + DEADLINE_MS
  let running: { url: string; pid: number } | undefined
  for (;;) {
    running = await answers(dataDirectory, child.pid)
    if (running !== undefined) break
    if (how !== undefined) throw await causeOf(log, Buffer.concat(said).toString('utf8'), how)
    if (stop.aborted || performance.now() > deadline) {
      child.kill('SIGTERM')
      await ended.promise
      stop.throwIfAborted()
      throw new Refusal('DeadlineExceeded', 'the server did not answer in time', `See ${log.path}.`)
    }
    await sleep(EVERY_MS)
  }
  child.unref()
  const { driver } = await new Icebox({ dataDirectory }).info()
  announce(
    {
      ...running,
      restartedBy: 'icebox',
      driver,
      dataDirectory,
      keyFile: join(dataDirectory, 'key'),
      logFile: log.path,
    },
    json,
  )
}

/** The server that this supervisor has started, and the address that it has said it is called by; undefined until it answers. */
async function answers(
  dataDirectory: string,
  supervisor: number | undefined,
): Promise<{ url: string; pid: number } | undefined> {
  try {
    const said: unknown = JSON.parse(await readFile(serverFile(dataDirectory), 'utf8'))
    if (typeof said !== 'object' || said === null || !('pid' in said) || typeof said.pid !== 'number') return undefined
    if (supervisor === undefined || (await parentOf(said.pid)) !== supervisor) return undefined
    // Once it can be found by others too.
    if ((await supervisorOf(dataDirectory))?.pid !== supervisor) return undefined
    await new Icebox({ dataDirectory }).health({ requestTimeoutMs: 5000 })
    return 'publicUrl' in said && typeof said.publicUrl === 'string'
      ? { url: said.publicUrl, pid: said.pid }
      : undefined
  } catch {
    return undefined
  }
}

const signalOf = (status: number | null): string =>
  Object.entries(constants.signals).find(([, number]) => number === (status ?? 0) - 128)?.[0] ?? `status ${status}`

/** The words that say how it is called, for the process that serves. */
function flagsOf({
  listen,
  domains = [],
  allowedHosts = [],
  corsOrigins = [],
  requireTokens = false,
  tls,
}: Reach): string[] {
  const host = listen.host.includes(':') ? `[${listen.host}]` : listen.host
  return [
    ...['--listen', `${host}:${listen.port}`],
    ...domains.flatMap((each) => ['--domain', each]),
    ...allowedHosts.flatMap((each) => ['--allow-host', each]),
    ...corsOrigins.flatMap((each) => ['--cors-origin', each]),
    ...(requireTokens ? ['--require-tokens'] : []),
    ...(tls === undefined ? [] : ['--tls-cert', tls.cert, '--tls-key', tls.key]),
  ]
}

const sourceFlags = ({ directories, registries, credentials }: Sources): string[] => [
  ...directories.flatMap((each) => ['--image-directory', each]),
  ...registries.flatMap((each) => ['--registry-allow', each]),
  ...credentials.flatMap((each) => ['--registry-credentials', each]),
]

/** The error that the server ended with, else its last words. */
async function causeOf(log: ServerLog, said: string, how: string): Promise<Error> {
  const lines = await log.more()
  const errors = [...lines, ...said.split('\n').map(parse)].map((line) =>
    typeof line === 'object' && line !== null && 'error' in line ? line.error : undefined,
  )
  const failure = errors.findLast(isFailure)
  if (failure !== undefined) return Object.assign(new Error(failure.message), failure)
  const words = [...log.words, ...said.split('\n')].filter((line) => line !== '').slice(-LAST_WORDS)
  const message = [`the server did not start: it ${how}`, ...words].join('\n')
  return new Refusal('Unavailable', message, `See ${log.path}, and run \`icebox doctor\`.`)
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

const isFailure = (value: unknown): value is { code: string; message: string; remedy: string } =>
  typeof value === 'object' &&
  value !== null &&
  ['code', 'message', 'remedy'].every(
    (key) => key in value && typeof Object.entries(value).find(([name]) => name === key)?.[1] === 'string',
  )
