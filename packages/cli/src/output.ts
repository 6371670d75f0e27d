import { styleText } from 'node:util'
import { visible, visibleJson, visibleLines } from './visible.ts'

type Style = Parameters<typeof styleText>[0]
type Stream = NodeJS.WriteStream

/** Styled where the stream is a terminal that wants it (NO_COLOR and FORCE_COLOR are heeded). */
export const paint = (style: Style, text: string, stream: Stream = process.stdout): string =>
  styleText(style, visibleLines(text), { stream })

export const print = (text: string): void => printStyled(visibleLines(text))
/** What `paint`, `table` and `facts` made: all else in it has to be visible already. */
export const printStyled = (text: string): void => {
  process.stdout.write(`${text}\n`)
}
/** For people, besides the answer. */
export const note = (text: string): void => {
  process.stderr.write(`${visibleLines(text)}\n`)
}
export const printJson = (value: unknown): void => printStyled(visibleJson(JSON.stringify(value, null, 2)))
/** One of many, in one line. */
export const printJsonLine = (value: unknown): void => printStyled(visibleJson(JSON.stringify(value)))

/** Lines after the first, so that none looks like the beginning of something. */
export const indented = (text: string, columns: number): string => text.replaceAll('\n', `\n${' '.repeat(columns)}`)

export interface Column<R> {
  title: string
  cell: (row: R) => string
  style?: (row: R) => Style | undefined
}

/** Columns as wide as they need to be, two blanks apart; the last one runs free. */
export function table<R>(rows: readonly R[], columns: readonly Column<R>[]): string {
  const cells = rows.map((row) => columns.map(({ cell }) => visible(cell(row))))
  const widths = columns.map(({ title }, at) =>
    Math.max(...[[title], ...cells.map((row) => [row[at] ?? ''])].map(([text = '']) => [...text].length)),
  )
  const pad = (text: string, at: number) =>
    at === columns.length - 1 ? text : text + ' '.repeat((widths[at] ?? 0) - [...text].length)
  const lines = rows.map((row, index) =>
    columns
      .map(({ style }, at) => {
        const text = pad(cells[index]?.[at] ?? '', at)
        const wanted = style?.(row)
        return wanted === undefined ? text : paint(wanted, text)
      })
      .join('  ')
      .trimEnd(),
  )
  const head = columns
    .map(({ title }, at) => pad(title, at))
    .join('  ')
    .trimEnd()
  return [paint('bold', head), ...lines].join('\n')
}

/** Facts about one thing, one a line. */
export function facts(entries: readonly (readonly [name: string, value: string | undefined])[]): string {
  const present = entries.filter(
    (entry): entry is readonly [string, string] => entry[1] !== undefined && entry[1] !== '',
  )
  const width = Math.max(...present.map(([name]) => name.length))
  return present.map(([name, value]) => `${paint('bold', name.padEnd(width))}  ${visible(value)}`).join('\n')
}

/** `12.3 MiB`. */
export function size(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, bytes)) / 10))
  const value = bytes / 1024 ** power
  return `${power === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[power]}`
}

/** `3m`, `2h 5m`, `4d 1h`: the two largest units. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds))
  const parts = [
    [Math.floor(whole / 86_400), 'd'],
    [Math.floor(whole / 3600) % 24, 'h'],
    [Math.floor(whole / 60) % 60, 'm'],
    [whole % 60, 's'],
  ] as const
  const first = parts.findIndex(([count]) => count > 0)
  if (first === -1) return '0s'
  return parts
    .slice(first, first + 2)
    .filter(([count]) => count > 0)
    .map(([count, unit]) => `${count}${unit}`)
    .join(' ')
}

export const ago = (time: string, now = Date.now()): string => `${duration((now - Date.parse(time)) / 1000)} ago`
export const until = (time: string | undefined, now = Date.now()): string =>
  time === undefined ? '-' : `in ${duration((Date.parse(time) - now) / 1000)}`
export const milliseconds = (value: number | undefined): string | undefined =>
  value === undefined ? undefined : `${Math.round(value)} ms`
