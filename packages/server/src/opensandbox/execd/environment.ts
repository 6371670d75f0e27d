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
const ENTRY =
  /^[^\S\n]*(?:(?<name>[A-Za-z_]\w*)[^\S\n]*=[^\S\n]*(?:'(?<plain>[^']*)'|"(?<quoted>(?:[^"\\]|\\[\s\S])*)"|(?<bare>[^'"\n][^\n]*)?)[^\S\n]*|[^\n]*)(?:\n|$)/gm

/**
 * The variables of such a file, one `NAME=value` a line. In single quotes a value is literal and may have several lines; in
 * double quotes `\n \r \t \\ \"` are escapes; without, it ends with its line. The last of a name counts; other lines do not.
 */
export function parseEnvironment(text: string): Record<string, string> {
  const found: Record<string, string> = {}
  for (const { groups = {} } of text.matchAll(ENTRY)) {
    const { name, plain, quoted, bare = '' } = groups
    if (name === undefined) continue
    found[name] = plain ?? quoted?.replace(/\\([nrt\\"])/g, (_, letter) => ESCAPES[letter] ?? '') ?? bare.trim()
  }
  return found
}

/** What every command and session of a sandbox gets besides its own environment. */
export async function environment(guest: Guest, signal: AbortSignal): Promise<Record<string, string>> {
  const own = { [VARIABLE]: FILE }
  try {
    const { data } = await guest.readFile(FILE, { length: LONGEST }, signal)
    const text = Buffer.from(await collect(data, LONGEST)).toString()
    return { ...parseEnvironment(text), ...own }
  } catch (thrown) {
    if (isError(thrown, 'NotFound')) return own
    throw thrown
  }
}
