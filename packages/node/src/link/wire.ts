import { constants } from 'node:os'
import { type ExecExit, ExecInfo, FILE_TYPES, FileInfo, GuestMetrics, IceboxError } from '@icebox/model'
import type { PayloadReader } from './payload.ts'

/** What the guest's answers mean. */
export const OP = {
  hello: 1,
  quiesce: 2,
  release: 3,
  exec: 10,
  attach: 11,
  execs: 12,
  signal: 13,
  resize: 14,
  read: 20,
  write: 21,
  stat: 22,
  list: 23,
  makeDirectory: 24,
  move: 25,
  remove: 26,
  setAttributes: 27,
  symlink: 28,
  watch: 29,
  dial: 30,
  metrics: 31,
  setXattr: 32,
} as const

export const EXEC_EVENT = { gap: 1, exit: 2, stdinTaken: 3, stdinClosed: 4 } as const

/** Arguments of a record, of which the guest cuts off all beyond 4 KiB. */
const MAX_ARGUMENTS = 4096
const MILLION = 1_000_000n
/** Times that a Date cannot hold are the guest's invention. */
const MAX_DATE = 8_640_000_000_000_000

function time(nanoseconds: bigint): string {
  const milliseconds = Number(nanoseconds / MILLION)
  return new Date(Math.max(-MAX_DATE, Math.min(MAX_DATE, milliseconds))).toISOString()
}

export function signalName(number: number): string {
  const known = Object.entries(constants.signals).find(([, value]) => value === number)
  return known?.[0] ?? (number >= 34 ? `SIGRTMIN+${number - 34}` : `SIG${number}`)
}

export function signalNumber(name: string): number {
  const realtime = /^SIGRTMIN\+(\d{1,2})$/.exec(name)
  const number = realtime ? 34 + Number(realtime[1]) : new Map(Object.entries(constants.signals)).get(name)
  if (number === undefined || number > 64) throw new IceboxError('InvalidArgument', `no signal is called ${name}`)
  return number
}

/** Exit codes are below 256; above it the signal that ended the process. */
export function readExit(payload: PayloadReader): ExecExit {
  const code = payload.u32()
  const timedOut = payload.u8() === 1
  return code < 256 ? { exitCode: code, timedOut } : { signal: signalName(code - 256), timedOut }
}

export function readExecInfo(payload: PayloadReader): ExecInfo {
  const info = {
    id: String(payload.u64()),
    pid: payload.u32(),
    argv: payload.list((r) => r.text(), MAX_ARGUMENTS),
    cwd: payload.text(),
    user: payload.text(),
    tag: payload.option((r) => r.text()),
    pty: payload.u8() === 1,
    startedAt: time(payload.i64()),
    stdoutBytes: payload.u64(),
    stderrBytes: payload.u64(),
    stdinBytes: payload.u64(),
    exit: payload.option(readExit),
  }
  return checked(ExecInfo, info)
}

/** `hasExtras`: whether xattrs and where a symlink leads follow. An answer that is one record alone shows it by its length. */
export function readFileInfo(payload: PayloadReader, hasExtras?: boolean): FileInfo {
  const info = {
    path: payload.text(),
    name: payload.text(),
    type: FILE_TYPES[payload.u8()],
    size: payload.u64(),
    mode: payload.u32(),
    uid: payload.u32(),
    gid: payload.u32(),
    owner: payload.text(),
    group: payload.text(),
    modifiedAt: time(payload.i64()),
    target: payload.option((r) => r.text()),
    ...((hasExtras ?? !payload.isEmpty) ? readExtras(payload) : {}),
  }
  return checked(FileInfo, info)
}

const readExtras = (payload: PayloadReader) => ({
  leadsTo: payload.option((r) => ({ path: r.text(), type: FILE_TYPES[r.u8()], mode: r.u32() })),
  xattrs: Object.fromEntries(payload.list((r) => [r.text(), r.text()] as const)),
})

export function readMetrics(payload: PayloadReader): GuestMetrics {
  return checked(GuestMetrics, {
    cpuCount: payload.u32(),
    cpuSeconds: payload.u64() / 1_000_000,
    memoryTotalBytes: payload.u64(),
    memoryUsedBytes: payload.u64(),
    diskTotalBytes: payload.u64(),
    diskUsedBytes: payload.u64(),
    processes: payload.u32(),
    memoryCacheBytes: payload.isEmpty ? undefined : payload.u64(),
  })
}

/** Absent fields are left out, and what does not fit the model is the guest's fault. */
function checked<T>(
  schema: { safeParse(value: unknown): { success: boolean; data?: T; error?: Error } },
  value: object,
): T {
  const present = Object.fromEntries(Object.entries(value).filter(([, field]) => field !== undefined))
  const { success, data, error } = schema.safeParse(present)
  if (success && data !== undefined) return data
  throw new IceboxError('GuestFailed', `the guest sent what cannot be: ${error?.message}`)
}
