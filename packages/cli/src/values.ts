import { UsageError } from './command.ts'

/** Values of flags: what the text means, or a UsageError that says what it should be. */

const UNITS_MS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

/** `30`, `30s`, `500ms`, `5m`, `2h`, `1d`, `1h30m`; a bare number is seconds. Gives milliseconds. */
export function timeMs(flag: string, text: string): number {
  const parts = [...(/^\d+(\.\d+)?$/.test(text) ? `${text}s` : text).matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)]
  const read = parts.reduce((length, [whole]) => length + whole.length, 0)
  const total = parts.reduce((sum, [, number, unit]) => sum + Number(number) * (UNITS_MS[unit ?? ''] ?? 0), 0)
  if (read < text.length || parts.length === 0 || total < 1)
    throw new UsageError(`${flag} must be a time such as 30s, 5m or 2h, not ${JSON.stringify(text)}`)
  return Math.round(total)
}

/** The same in whole seconds, rounded up: what the API takes for the life of a sandbox. */
export const timeSeconds = (flag: string, text: string): number => Math.ceil(timeMs(flag, text) / 1000)

const UNITS_BYTES: Record<string, number> = {
  '': 1,
  k: 1e3,
  m: 1e6,
  g: 1e9,
  t: 1e12,
  ki: 2 ** 10,
  mi: 2 ** 20,
  gi: 2 ** 30,
  ti: 2 ** 40,
}

/** `10GiB`, `512Mi`, `1.5G`: bytes. A unit must be there, since a bare number is misread too easily. */
export function bytes(flag: string, text: string): number {
  const [, number, unit] = /^(\d+(?:\.\d+)?)\s*([kmgt]i?)b?$/i.exec(text) ?? []
  const factor = UNITS_BYTES[unit?.toLowerCase() ?? '-']
  if (number === undefined || factor === undefined || Number(number) === 0)
    throw new UsageError(`${flag} must be a size with its unit, such as 512MiB or 2GiB, not ${JSON.stringify(text)}`)
  return Math.round(Number(number) * factor)
}

export const mebibytes = (flag: string, text: string): number => Math.ceil(bytes(flag, text) / 2 ** 20)

export function integer(flag: string, text: string, min: number, max: number): number {
  const value = Number(text)
  if (!/^\d+$/.test(text) || value < min || value > max)
    throw new UsageError(`${flag} must be a whole number from ${min} to ${max}, not ${JSON.stringify(text)}`)
  return value
}

export function decimal(flag: string, text: string): number {
  const value = Number(text)
  if (!/^\d+(\.\d+)?$/.test(text) || value === 0)
    throw new UsageError(`${flag} must be a number such as 2 or 0.5, not ${JSON.stringify(text)}`)
  return value
}

/** `K=V` as often as given; the last one of a key counts. */
export function keyValues(flag: string, texts: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    texts.map((text) => {
      const at = text.indexOf('=')
      if (at < 1) throw new UsageError(`${flag} must be KEY=VALUE, not ${JSON.stringify(text)}`)
      return [text.slice(0, at), text.slice(at + 1)]
    }),
  )
}

/** `HOST:PORT`, `:PORT`, `PORT`, `[::1]:PORT`. Port 0: the system picks one. */
export function address(flag: string, text: string): { host: string; port: number } {
  const [, bracketed, plain, port] =
    /^(?:\[([0-9a-f:.]+)\]|([^:[\]]*)):(\d+)$/i.exec(/^\d+$/.test(text) ? `:${text}` : text) ?? []
  if (port === undefined || Number(port) > 65_535)
    throw new UsageError(`${flag} must be HOST:PORT, such as 127.0.0.1:7070, not ${JSON.stringify(text)}`)
  return { host: bracketed ?? (plain || '127.0.0.1'), port: Number(port) }
}
