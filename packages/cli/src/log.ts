import { open } from 'node:fs/promises'
import type { Log } from '@icebox/control'
import { visibleJson } from './visible.ts'

/** Milliseconds that lines of the log wait for company: each write is a switch to another thread, in the way of requests. */
const LOG_DELAY = 20
/** Milliseconds after which what could not be written is tried again. */
const RETRY_MS = 1000
/** Bytes of lines that wait for room on a full disk, or for a slow one. */
const KEPT_BYTES = 4_194_304

export interface ServerLogFile {
  write: Log
  writeLine(line: string): void
  /** Writes what is left, if that can be written. Never throws. */
  close(): Promise<void>
}

const lineOf: (...line: Parameters<Log>) => string = (level, event, facts) =>
  `${JSON.stringify({ level, time: new Date().toISOString(), event, ...facts })}\n`

/**
 * One JSON line per event, appended; on a terminal it shows no control characters that guests or clients wrote. Lines that cannot be written, as on a full disk, wait for room, so many bytes of them; of those
 * beyond it the log itself tells, where they are missing, how many there were. Nobody waits for a line to be written. A server
 * that is killed loses the lines of its last moments.
 */
export async function openLog(file: string): Promise<ServerLogFile> {
  const handle = await open(file, 'a', 0o600)
  let waiting = ''
  /** What of the lines taken last is not written: it begins where the file ends, be that within a line. */
  let rest = Buffer.alloc(0)
  /** Bytes of both. */
  let held = 0
  let dropped = 0
  let timer: NodeJS.Timeout | undefined
  let writing = Promise.resolve()

  const take = () => {
    // Told once all that came before is written.
    const lines = waiting !== '' || dropped === 0 ? waiting : lineOf('warn', 'log.dropped', { lines: dropped })
    if (waiting === '') dropped = 0
    waiting = ''
    rest = Buffer.from(visibleJson(lines))
    held = rest.length
  }
  const append = async () => {
    try {
      for (;;) {
        if (rest.length === 0) take()
        if (rest.length === 0) return
        const { bytesWritten } = await handle.write(rest)
        rest = rest.subarray(bytesWritten)
        held -= bytesWritten
      }
    } catch {
      // There is nobody to tell.
      timer ??= setTimeout(flush, RETRY_MS).unref()
    }
  }
  const flush = () => {
    clearTimeout(timer)
    timer = undefined
    writing = writing.then(append)
    return writing
  }
  const writeLine = (line: string) => {
    const bytes = Buffer.byteLength(line)
    // Once one is missing, so are those after it, until that is told.
    if (dropped > 0 || held + bytes > KEPT_BYTES) {
      dropped += 1
      return
    }
    waiting += line
    held += bytes
    timer ??= setTimeout(flush, LOG_DELAY)
  }
  return {
    writeLine,
    write: (level, event, facts) => writeLine(lineOf(level, event, facts)),
    async close() {
      await flush()
      clearTimeout(timer)
      await handle.close().catch(() => {})
    },
  }
}
