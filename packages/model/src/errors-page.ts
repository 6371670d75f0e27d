import { ERRORS } from './errors.ts'

const BEGIN = '<!-- begin: the registry -->'
const END = '<!-- end: the registry -->'

/** docs/reference/errors.md with its table as the registry says. Throws when the page has no place for it. */
export function withErrorTable(page: string): string {
  const [before, rest] = page.split(BEGIN)
  const after = rest?.split(END)[1]
  if (before === undefined || after === undefined) throw new Error(`the page lacks ${BEGIN} or ${END}`)
  const rows = Object.entries(ERRORS).map(([code, { status, remedy }]) => `| \`${code}\` | ${status} | ${remedy} |`)
  return [`${before}${BEGIN}`, '| code | HTTP | what to do |', '|---|---|---|', ...rows, `${END}${after}`].join('\n')
}
