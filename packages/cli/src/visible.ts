/**
 * What guests, clients and registries wrote may hold sequences that move the cursor, hide text, set the window's title or turn lines
 * around. Everything that is printed for people goes through here; only the output of commands and logs is passed on as it is.
 */

/** Control characters (C0, DEL, C1), line and paragraph separators, and what changes the direction of text. */
const UNSAFE = /[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/gu
const NAMED: Readonly<Record<string, string>> = { '\n': '\\n', '\t': '\\t', '\r': '\\r' }

const hex = (character: string, digits: number): string => character.charCodeAt(0).toString(16).padStart(digits, '0')
const written = (character: string): string =>
  NAMED[character] ?? (character < '\u0100' ? `\\x${hex(character, 2)}` : `\\u${hex(character, 4)}`)

/** For one line, such as a cell of a table: each unsafe character as `\n`, `\x1b` or `\u202e`. */
export const visible = (text: string): string => text.replace(UNSAFE, written)

/** For text of several lines: line ends and tabs stay. */
export const visibleLines = (text: string): string =>
  text.replace(UNSAFE, (character) => (character === '\n' || character === '\t' ? character : written(character)))

/** The same JSON with what JSON lets pass (DEL, C1, directions) as `\u009b`. Line ends between its tokens stay. */
export const visibleJson = (json: string): string =>
  json.replace(UNSAFE, (character) => (character === '\n' ? character : `\\u${hex(character, 4)}`))
