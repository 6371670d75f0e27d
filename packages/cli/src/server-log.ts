import { open, stat } from 'node:fs/promises'
import { paint } from './output.ts'
import { visible, visibleJson } from './visible.ts'

type Line = Record<string, unknown>

/** Reads what is appended to a server's log (`<data directory>/server.log`, a JSON object a line), from now on or an offset. */
export class ServerLog {
  readonly path: string
  #offset: number
  #rest = ''
  /** What was no JSON object: the last words of a process that crashed. */
  readonly words: string[] = []

  private constructor(path: string, offset: number) {
    this.path = path
    this.#offset = offset
  }

  static async fromNow(path: string): Promise<ServerLog> {
    const size = await stat(path).then(
      (stats) => stats.size,
      () => 0,
    )
    return new ServerLog(path, size)
  }

  /** The lines that came since. */
  async more(): Promise<Line[]> {
    const handle = await open(this.path).catch(() => undefined)
    if (handle === undefined) return []
    await using file = handle
    const chunk = Buffer.alloc(256 * 1024)
    const lines: Line[] = []
    for (;;) {
      const { bytesRead } = await file.read(chunk, 0, chunk.length, this.#offset)
      if (bytesRead === 0) return lines
      this.#offset += bytesRead
      const pieces = (this.#rest + chunk.toString('utf8', 0, bytesRead)).split('\n')
      this.#rest = pieces.pop() ?? ''
      for (const piece of pieces) {
        const line = parse(piece)
        if (line !== undefined) lines.push(line)
        else if (piece !== '') this.words.push(piece)
      }
    }
  }
}

function parse(text: string): Line | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? { ...value } : undefined
  } catch {
    return undefined
  }
}

const LEVELS = { error: 'red', warn: 'yellow', info: 'green' } as const

/** `12:03:44 info  request  operation=createSandbox status=202`. */
export function logText({ time, level, event, ...facts }: Line): string {
  const name = String(level)
  const style = name === 'error' || name === 'warn' || name === 'info' ? LEVELS[name] : 'dim'
  const text = Object.entries(facts)
    .filter(([, value]) => value !== undefined && value !== null)
    .map(
      ([key, value]) =>
        `${paint('dim', `${visible(key)}=`)}${typeof value === 'string' ? visible(value) : visibleJson(JSON.stringify(value))}`,
    )
  return [
    paint('dim', String(time).slice(11, 19)),
    paint(style, visible(name).padEnd(5)),
    visible(String(event)),
    ...text,
  ].join(' ')
}
