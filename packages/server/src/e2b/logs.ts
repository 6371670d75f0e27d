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

/** Lines of what became of a sandbox and of what its start command and entrypoint wrote, which fit, from the one end or the other. */
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

const LEVELS = { lifecycle: 'info', stdout: 'info', stderr: 'warn' } as const

/** One entry per line. Lines of one process and stream come in pieces: the rest of one waits for its end. */
async function* entriesOf(project: Project, { metadata }: Sandbox, signal: AbortSignal): AsyncGenerator<Entry> {
  const rests = new Map<string, Entry>()
  for await (const { at, source, text, of } of await project.sandboxes.logs(metadata.name, { follow: false }, signal)) {
    const fields: Record<string, string> = { logger: of ?? 'sandbox', stream: source }
    const entry = (message: string): Entry => ({ timestamp: at, message, level: LEVELS[source], fields })
    if (source === 'lifecycle') {
      yield entry(text)
      continue
    }
    const key = `${of} ${source}`
    const rest = rests.get(key)
    const [first = '', ...more] = text.split('\n')
    const begun = rest === undefined ? entry(first) : { ...rest, message: rest.message + first }
    const lines = [begun, ...more.map(entry)]
    const last = lines.pop()
    yield* lines
    if (last === undefined || last.message === '') rests.delete(key)
    else rests.set(key, last)
  }
  yield* rests.values()
}
