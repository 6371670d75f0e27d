import { isIP } from 'node:net'
import { UsageError } from './command.ts'
import { duration, size } from './output.ts'

/** Values of flags: what the text means, or a UsageError that says what it should be. */

/** Of a number, both allowed. */
export interface Bounds {
  readonly min: number
  readonly max: number
}

/** `value` is what the text means, undefined when it means nothing. */
function bounded(
  flag: string,
  text: string,
  form: string,
  value: number | undefined,
  { min, max }: Bounds,
  show: (value: number) => string,
): number {
  if (value !== undefined && value >= min && value <= max) return value
  const range = max === Number.POSITIVE_INFINITY ? '' : ` from ${show(min)} to ${show(max)},`
  throw new UsageError(`${flag} must be ${form},${range} not ${JSON.stringify(text)}`)
}

const TIME = 'a time such as 30s, 5m or 2h'
const UNITS_MS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }

function milliseconds(text: string): number | undefined {
  const parts = [...(/^\d+(\.\d+)?$/.test(text) ? `${text}s` : text).matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h|d)/g)]
  const read = parts.reduce((length, [whole]) => length + whole.length, 0)
  const total = parts.reduce((sum, [, number, unit]) => sum + Number(number) * (UNITS_MS[unit ?? ''] ?? 0), 0)
  return read < text.length || parts.length === 0 ? undefined : Math.round(total)
}

/** `30`, `30s`, `500ms`, `5m`, `2h`, `1d`, `1h30m`; a bare number is seconds. Gives milliseconds. */
export const timeMs = (flag: string, text: string): number =>
  bounded(flag, text, TIME, milliseconds(text), { min: 1, max: Number.MAX_SAFE_INTEGER }, (ms) =>
    ms < 1000 ? `${ms}ms` : duration(ms / 1000),
  )

/** The same in whole seconds, rounded up: what the API takes for the life of a sandbox. */
export function timeSeconds(flag: string, text: string, bounds: Bounds): number {
  const ms = milliseconds(text)
  return bounded(flag, text, TIME, ms === undefined ? undefined : Math.ceil(ms / 1000), bounds, duration)
}

/** A time such as `2026-01-31T12:00:00Z`, `2026-01-31` or, as long before (-1) or after (1) now, `7d`. Gives ISO 8601. */
export function moment(flag: string, text: string, direction: -1 | 1, now = Date.now()): string {
  const away = milliseconds(text)
  const time = away === undefined ? Date.parse(text) : now + direction * away
  if (/^\d{4}-\d{2}-\d{2}/.test(text) ? !Number.isNaN(time) : away !== undefined && Math.abs(time) < 8.64e15)
    return new Date(time).toISOString()
  const form = `a time such as 2026-01-31 or 2026-01-31T12:00:00Z, or 7d for 7 days ${direction < 0 ? 'ago' : 'from now'}`
  throw new UsageError(`${flag} must be ${form}, not ${JSON.stringify(text)}`)
}

const SIZE = 'a size with its unit, such as 512MiB or 2GiB'
const UNITS_BYTES: Record<string, number> = {
  k: 1e3,
  m: 1e6,
  g: 1e9,
  t: 1e12,
  ki: 2 ** 10,
  mi: 2 ** 20,
  gi: 2 ** 30,
  ti: 2 ** 40,
}

/** A unit must be there, since a bare number is misread too easily. */
function bytesIn(text: string): number | undefined {
  const [, number, unit] = /^(\d+(?:\.\d+)?)\s*([kmgt]i?)b?$/i.exec(text) ?? []
  const factor = UNITS_BYTES[unit?.toLowerCase() ?? '']
  return number === undefined || factor === undefined ? undefined : Math.round(Number(number) * factor)
}

/** `10GiB`, `512Mi`, `1.5G`: bytes. */
export const bytes = (flag: string, text: string): number =>
  bounded(flag, text, SIZE, bytesIn(text), { min: 1, max: Number.POSITIVE_INFINITY }, size)

/** The same in MiB, as are the bounds. */
export function mebibytes(flag: string, text: string, bounds: Bounds): number {
  const found = bytesIn(text)
  const mebi = found === undefined ? undefined : Math.ceil(found / 2 ** 20)
  return bounded(flag, text, SIZE, mebi, bounds, (value) => size(value * 2 ** 20))
}

export const integer = (flag: string, text: string, bounds: Bounds): number =>
  bounded(flag, text, 'a whole number', /^\d+$/.test(text) ? Number(text) : undefined, bounds, String)

export const decimal = (flag: string, text: string, bounds: Bounds): number =>
  bounded(
    flag,
    text,
    'a number such as 2 or 0.5',
    /^\d+(\.\d+)?$/.test(text) ? Number(text) : undefined,
    bounds,
    String,
  )

export function oneOf<const T extends string>(flag: string, text: string, words: readonly T[]): T {
  const found = words.find((word) => word === text)
  if (found === undefined) throw new UsageError(`${flag} must be ${words.join(' or ')}, not ${JSON.stringify(text)}`)
  return found
}

export function notEmpty(flag: string, text: string): string {
  if (text === '') throw new UsageError(`${flag} is empty`)
  return text
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

const NAME = /^(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/

/** A name of the DNS, or an address. */
export function hostNameOf(flag: string, text: string): string {
  const name = text.toLowerCase()
  if (isIP(name) === 0 && !NAME.test(name))
    throw new UsageError(`${flag} must be a name such as icebox.example, without a port, not ${JSON.stringify(text)}`)
  return name
}

/** A name of the DNS or an address, also with a port, or a network such as 10.0.0.0/8. */
export function hostOrNetwork(flag: string, text: string): string {
  const [address = '', length, more] = text.split('/')
  if (length !== undefined) {
    const most = isIP(address) === 4 ? 32 : isIP(address) === 6 ? 128 : -1
    if (more === undefined && /^\d{1,3}$/.test(length) && Number(length) <= most) return text
    throw new UsageError(`${flag} must be a host, or a network such as 10.0.0.0/8, not ${JSON.stringify(text)}`)
  }
  if (isIP(text) !== 0) return text
  const [, bracketed, name, port] = /^(?:\[([0-9a-f:.]+)\]|([^:[\]]+))(?::(\d{1,5}))?$/i.exec(text) ?? []
  if (port !== undefined && Number(port) > 65_535) throw new UsageError(`${flag} has no port ${port}`)
  hostNameOf(flag, bracketed ?? name ?? text)
  return text
}

/** A name of the DNS under which there are others. */
export function domain(flag: string, text: string): string {
  const name = text.toLowerCase().replace(/^\*\./, '')
  if (isIP(name) !== 0 || !NAME.test(name))
    throw new UsageError(`${flag} must be a domain such as icebox.example, not ${JSON.stringify(text)}`)
  return name
}

/** An origin as browsers send it, or `*`. */
export function origin(flag: string, text: string): string {
  const url = URL.parse(text)
  if (text === '*') return text
  if (url === null || url.origin === 'null' || !/^https?:$/.test(url.protocol) || url.href !== `${url.origin}/`)
    throw new UsageError(`${flag} must be an origin such as https://app.example, not ${JSON.stringify(text)}`)
  return url.origin
}
