import type { Project } from '@icebox/control'
import type { Sandbox } from '@icebox/model'
import type { z } from 'zod'
import { type LogEntry, LogLevel } from './schemas.ts'

type Entry = z.infer<typeof LogEntry>

export interface LogQuery {
  /** Milliseconds. */
  start?: number | undefined
  limit: number
  direction: 'forward' | 'backward'
  level?: z.infer<typeof LogLevel> | undefined
  search?: string | undefined
}

/** At most so many lines are answered, whatever was asked for. */
const MOST = 10_000

const rank = (level: z.infer<typeof LogLevel>): number => LogLevel.options.indexOf(level)

/** Lines of what a running sandbox's start command and entrypoint wrote, which fit, from the one end or the other. */
export async function recentLines(
  project: Project,
  sandbox: Sandbox,
  query: LogQuery,
  signal: AbortSignal,
): Promise<Entry[]> {
  const { start, direction, level, search } = query
  const limit = Math.min(query.limit, MOST)
  const fitting: Entry[] = []
  for await (const entry of entriesOf(project, sandbox, signal)) {
    const at = Date.parse(entry.timestamp)
    if (start !== undefined && (direction === 'forward' ? at < start : at > start)) continue
    if (level !== undefined && rank(entry.level) < rank(level)) continue
    if (search !== undefined && !entry.message.includes(search)) continue
    fitting.push(entry)
    if (fitting.length <= limit) continue
    if (direction === 'forward') fitting.pop()
    else fitting.shift()
  }
  return direction === 'forward' ? fitting : fitting.reverse()
}

async function* entriesOf(project: Project, { metadata, status }: Sandbox, signal: AbortSignal): AsyncGenerator<Entry> {
  if (status.state !== 'running') return
  const decoder = new TextDecoder()
  let rest = ''
  const entry = (message: string): Entry => ({
    timestamp: status.lastTransitionAt,
    message,
    level: 'info',
    fields: { logger: 'start' },
  })
  for await (const bytes of await project.sandboxes.logs(metadata.name, { follow: false }, signal)) {
    const lines = (rest + decoder.decode(bytes, { stream: true })).split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) yield entry(line)
  }
  if (rest !== '') yield entry(rest)
}
