import { open } from 'node:fs/promises'
import type { Log } from '@icebox/control'
import { visibleJson } from './visible.ts'

/** Milliseconds that lines of the log wait for company: each write is a switch to another thread, in the way of requests. */
const LOG_DELAY = 20
const NEWLINE = 0x0a

export interface ServerLogFile {
  write: Log
  writeLine(line: string): void
  /** Writes what is left, if that can be written. Never throws. */
  close(): Promise<void>
}

const lineOf: (...line: Parameters<Log>) => string = (level, event, facts) =>
  `${JSON.stringify({ level, time: new Date().toISOString(), event, ...facts })}\n`

/**
 * One JSON line per event, appended; on a terminal it shows no control characters that guests or clients wrote. Lines that cannot be written are dropped, since a server without a log can still serve
 * those who make room on a full disk; the first line that can be written again comes after one that says how many are missing.
 * A server that is killed loses the lines of its last moments.
 */
export async function openLog(file: string): Promise<ServerLogFile> {
  const handle = await open(file, 'a', 0o600)
  let waiting = ''
  let timer: NodeJS.Timeout | undefined
  let writing = Promise.resolve()
  let dropped = 0
  let torn = false

  const append = async (lines: string) => {
    const missing = dropped > 0 ? lineOf('warn', 'log.dropped', { lines: dropped }) : ''
    const bytes = Buffer.from(visibleJson(`${torn ? '\n' : ''}${missing}${lines}`))
    let done = 0
    try {
      while (done < bytes.length) done += (await handle.write(bytes, done)).bytesWritten
      dropped = 0
    } catch {
      // There is nobody to tell.
      dropped += lines.split('\n').length - 1
    }
    if (done > 0) torn = bytes[done - 1] !== NEWLINE
  }
  const flush = () => {
    clearTimeout(timer)
    timer = undefined
    const lines = waiting
    waiting = ''
    if (lines !== '') writing = writing.then(() => append(lines))
    return writing
  }
  const writeLine = (line: string) => {
    waiting += line
    timer ??= setTimeout(flush, LOG_DELAY)
  }
  return {
    writeLine,
    write: (level, event, facts) => writeLine(lineOf(level, event, facts)),
    async close() {
      await flush()
      await handle.close().catch(() => {})
    },
  }
}
