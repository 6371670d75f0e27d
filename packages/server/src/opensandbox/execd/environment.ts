import { collect, type Guest, isError } from '@icebox/model'

/**
 * The file of environment variables that clients write to when they set one for all later commands; they find it by this
 * variable, which every command has.
 */
const VARIABLE = 'EXECD_ENVS'
const FILE = '/tmp/.opensandbox/envs'
/** Bytes of it that are read. */
const LONGEST = 65_536

const ESCAPES: Record<string, string> = { n: '\n', r: '\r', t: '\t', '\\': '\\', '"': '"' }
const NAME = /^[A-Za-z_]\w*$/

/**
 * The variables of such a file, one `NAME=value` a line. In single quotes a value is literal and may have several lines; in
 * double quotes `\n \r \t \\ \"` are escapes; without, it ends with its line. The last of a name counts; other lines do not.
 */
export function parseEnvironment(text: string): Record<string, string> {
  const found: Record<string, string> = {}
  let at = 0
  while (at < text.length) {
    const lineEnd = endOfLine(text, at)
    const equals = text.slice(at, lineEnd).indexOf('=')
    const name = equals === -1 ? '' : text.slice(at, at + equals).trim()
    const value = NAME.test(name) ? valueAt(text, at + equals + 1, lineEnd) : undefined
    if (value !== undefined) found[name] = value.text
    at = (value?.end ?? lineEnd) + 1
  }
  return found
}

function endOfLine(text: string, at: number): number {
  const end = text.indexOf('\n', at)
  return end === -1 ? text.length : end
}

/** The value that begins there, and where its last line ends; undefined when it is not a value as a whole. */
function valueAt(text: string, from: number, lineEnd: number): { text: string; end: number } | undefined {
  const line = text.slice(from, lineEnd)
  const begin = from + line.length - line.trimStart().length
  const quote = text[begin]
  if (begin >= lineEnd || (quote !== "'" && quote !== '"')) return { text: line.trim(), end: lineEnd }
  const quoted = quote === "'" ? literalAt(text, begin + 1) : escapedAt(text, begin + 1)
  if (quoted === undefined) return undefined
  const end = endOfLine(text, quoted.end)
  return text.slice(quoted.end, end).trim() === '' ? { text: quoted.text, end } : undefined
}

/** Up to the next single quote. */
function literalAt(text: string, from: number): { text: string; end: number } | undefined {
  const close = text.indexOf("'", from)
  return close === -1 ? undefined : { text: text.slice(from, close), end: close + 1 }
}

/** Up to the next double quote that is not escaped. */
function escapedAt(text: string, from: number): { text: string; end: number } | undefined {
  const pieces: string[] = []
  for (let at = from; at < text.length; at++) {
    const character = text[at] ?? ''
    if (character === '"') return { text: pieces.join(''), end: at + 1 }
    if (character !== '\\') {
      pieces.push(character)
      continue
    }
    const next = text[++at] ?? ''
    pieces.push(ESCAPES[next] ?? `\\${next}`)
  }
  return undefined
}

/** What every command and session of a sandbox gets besides its own environment. */
export async function environment(guest: Guest, signal: AbortSignal): Promise<Record<string, string>> {
  const own = { [VARIABLE]: FILE }
  try {
    const { data } = await guest.readFile(FILE, { length: LONGEST }, signal)
    return { ...parseEnvironment(Buffer.from(await collect(data, LONGEST)).toString()), ...own }
  } catch (thrown) {
    if (isError(thrown, 'NotFound')) return own
    throw thrown
  }
}
