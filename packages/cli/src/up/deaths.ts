import { existsSync } from 'node:fs'
import { readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { DeathCause, ServerDeaths } from '@icebox/control'
import { z } from 'zod'
import { startTime } from '../process.ts'

/** What became of servers that nobody told to end. Read and written without a server: each that dies is recorded by who outlives it. */

const CAUSES = [
  'OutOfHeap',
  'OutOfMemory',
  'Killed',
  'Crashed',
  'Exception',
  'Failed',
  'HostRestarted',
  'Unknown',
] as const satisfies readonly DeathCause[]
/** Deaths of which more is kept than their number. */
const KEPT = 50
/** Characters of a message: that of an exception may hold anything. */
const MESSAGE_LENGTH = 1000
const LARGEST_BYTES = 1024 ** 2

export const Death = z.object({
  at: z.iso.datetime(),
  pid: z.int(),
  cause: z.enum(CAUSES),
  message: z.string(),
  ranSeconds: z.number().optional(),
  /** After how long the supervisor starts it again; absent: nobody does. */
  restartMs: z.number().optional(),
  /** Whether an event tells of it. */
  told: z.boolean(),
})
export type Death = z.infer<typeof Death>

const Deaths = z.object({ counts: z.partialRecord(z.enum(CAUSES), z.int()), recent: z.array(Death) })
export type Deaths = z.infer<typeof Deaths>

const fileOf = (dataDirectory: string): string => join(dataDirectory, 'deaths.json')

/** Text of a file that is ours and small; undefined when it is not there or not small. */
async function smallText(file: string): Promise<string | undefined> {
  const found = await stat(file).catch(() => undefined)
  return found === undefined || found.size > LARGEST_BYTES ? undefined : readFile(file, 'utf8').catch(() => undefined)
}

export async function readDeaths(dataDirectory: string): Promise<Deaths> {
  const parsed = Deaths.safeParse(parse(await smallText(fileOf(dataDirectory))))
  return parsed.success ? parsed.data : { counts: {}, recent: [] }
}

async function writeDeaths(dataDirectory: string, { counts, recent }: Deaths): Promise<void> {
  // What is not ours is left as it is.
  if (!existsSync(join(dataDirectory, 'lock'))) return
  const file = fileOf(dataDirectory)
  await writeFile(`${file}.part`, JSON.stringify({ counts, recent: recent.slice(-KEPT) }), { mode: 0o600, flush: true })
  await rename(`${file}.part`, file)
}

/** Adds one, durably. Only one process may call this at a time: who has seen the server die, or has the lock of the data directory. */
export async function recordDeath(dataDirectory: string, death: Omit<Death, 'told'>): Promise<void> {
  const { counts, recent } = await readDeaths(dataDirectory)
  const message = death.message.slice(0, MESSAGE_LENGTH)
  await writeDeaths(dataDirectory, {
    counts: { ...counts, [death.cause]: (counts[death.cause] ?? 0) + 1 },
    recent: [...recent, { ...death, message, told: false }],
  })
}

/** What the server that starts tells of those before it, until `markTold`. */
export async function untoldDeaths(dataDirectory: string): Promise<ServerDeaths> {
  const { counts, recent } = await readDeaths(dataDirectory)
  return { counts, untold: recent.filter(({ told }) => !told) }
}

export async function markTold(dataDirectory: string): Promise<void> {
  const { counts, recent } = await readDeaths(dataDirectory)
  if (recent.every(({ told }) => told)) return
  await writeDeaths(dataDirectory, { counts, recent: recent.map((death) => ({ ...death, told: true })) })
}

/** What Node writes when the heap is full or nothing catches an exception; without the environment, see `nodeFlags`. */
const Report = z.object({
  header: z.object({
    event: z.string(),
    trigger: z.string(),
    processId: z.int(),
    dumpEventTimeStamp: z.coerce.number(),
  }),
  javascriptStack: z.object({ message: z.string(), stack: z.array(z.string()).optional() }).optional(),
})
const CRASH_REPORT = 'crash-report.json'

/** Has Node say in the data directory why this process dies, should it: the newest such report is kept. */
export function reportCrashes(dataDirectory: string): void {
  Object.assign(process.report, {
    ...{ directory: dataDirectory, filename: CRASH_REPORT, compact: true, excludeNetwork: true },
    ...{ reportOnFatalError: true, reportOnUncaughtException: true },
  })
}

export interface Why {
  cause: DeathCause
  message: string
  at?: string
}

/** What the process itself said of its end; undefined when it could not. */
export async function crashOf(dataDirectory: string, pid: number, since: string): Promise<Why | undefined> {
  const parsed = Report.safeParse(parse(await smallText(join(dataDirectory, CRASH_REPORT))))
  if (!parsed.success) return undefined
  const { header, javascriptStack } = parsed.data
  // Of an earlier process with the same number otherwise.
  if (header.processId !== pid || header.dumpEventTimeStamp < Date.parse(since)) return undefined
  const at = new Date(header.dumpEventTimeStamp).toISOString()
  if (header.trigger === 'OOMError') return { cause: 'OutOfHeap', message: 'its JavaScript heap was full', at }
  if (header.trigger !== 'Exception') return { cause: 'Crashed', message: header.event, at }
  const { message = header.event, stack = [] } = javascriptStack ?? {}
  return { cause: 'Exception', message: [message, ...stack.slice(0, 1)].join(' '), at }
}

const byItself = (status: number): Why => ({ cause: 'Failed', message: `it ended with status ${status}` })

/** What is known from outside. `killedByKernel`: the kernel says that it killed a process of its control group. */
export function endOf(status: number | null, signal: string | null, killedByKernel: boolean): Why {
  if (status !== null) return byItself(status)
  if (killedByKernel) return { cause: 'OutOfMemory', message: 'the kernel killed it for want of memory' }
  if (signal === 'SIGKILL')
    return {
      cause: 'Killed',
      message: 'SIGKILL ended it: of somebody, or of the kernel for want of memory (`dmesg` says so)',
    }
  return { cause: 'Crashed', message: `${signal} ended it` }
}

/** What a running server says of itself; left behind by one that died. */
const ServerFile = z.object({
  pid: z.int(),
  startedAt: z.iso.datetime(),
  /** As `startTime` of the process, within this boot of the host. */
  startTime: z.string(),
  boot: z.string(),
  restartedBy: z.enum(['icebox', 'systemd']).optional(),
  /** It was told to end, and has not yet. */
  ending: z.boolean().optional(),
})

export type ServerFile = z.infer<typeof ServerFile>

export async function readServerFile(dataDirectory: string): Promise<ServerFile | undefined> {
  const parsed = ServerFile.safeParse(parse(await smallText(join(dataDirectory, 'server.json'))))
  return parsed.success ? parsed.data : undefined
}

/** Whether it runs: not only a process that has its number since. */
export const isRunning = async ({ pid, startTime: started, boot }: ServerFile): Promise<boolean> =>
  boot === (await bootId()) && (await startTime(pid)) === started

export const bootId = async (): Promise<string> => (await readFile('/proc/sys/kernel/random/boot_id', 'utf8')).trim()

/** What systemd said of the last run of its unit, see `deploy/icebox.service`: `$SERVICE_RESULT $EXIT_CODE $EXIT_STATUS`. */
async function serviceResult(dataDirectory: string): Promise<Why | undefined> {
  const file = join(dataDirectory, 'service-result')
  const [result, how, status = ''] = ((await smallText(file)) ?? '').trim().split(' ')
  await rm(file, { force: true })
  if (result === 'oom-kill') return endOf(null, 'SIGKILL', true)
  if (how === 'exited') return byItself(Number(status))
  if (how === 'killed' || how === 'dumped') return endOf(null, `SIG${status}`, false)
  return undefined
}

/**
 * Records the death of the server before this one when nobody did: it had no supervisor, or its supervisor died too. For the process
 * that has the lock of the data directory.
 */
export async function recordUnseenDeath(dataDirectory: string): Promise<(Why & { pid: number }) | undefined> {
  const result = await serviceResult(dataDirectory)
  const last = await readServerFile(dataDirectory)
  if (last === undefined) return undefined
  await rm(join(dataDirectory, 'server.json'), { force: true })
  const crash = await crashOf(dataDirectory, last.pid, last.startedAt)
  // Told to end, it did, as far as it is known.
  if (last.ending === true && crash === undefined) return undefined
  const { recent } = await readDeaths(dataDirectory)
  if (recent.some(({ pid, at }) => pid === last.pid && at >= last.startedAt)) return undefined
  // The server notes every minute that it is alive.
  const seen = await stat(join(dataDirectory, 'boot')).catch(() => undefined)
  const seenAt =
    seen === undefined || seen.mtimeMs < Date.parse(last.startedAt) ? last.startedAt : seen.mtime.toISOString()
  const unseen: Why =
    last.boot !== (await bootId())
      ? { cause: 'HostRestarted', message: 'the host went down under it' }
      : (result ?? { cause: 'Unknown', message: 'nobody saw it end; it was last seen alive then' })
  const { cause, message, at = seenAt } = crash ?? unseen
  const death = { at, pid: last.pid, cause, message }
  await recordDeath(dataDirectory, death)
  return death
}

function parse(text: string | undefined): unknown {
  try {
    return text === undefined ? undefined : JSON.parse(text)
  } catch {
    return undefined
  }
}
