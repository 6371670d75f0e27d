import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { cacheDirectory, withLock } from '@icebox/node'
import type { CallList } from './calls.ts'

/** What of a client does not behave as it does against the service it was written for, and why. */
export interface Difference {
  is: 'differs' | 'absent'
  why: string
}

/**
 * By call (`sandbox.kill`), by all calls of something (`Volume.*`), or by an option of a call, in parentheses
 * (`Sandbox.create (mcp)`): the call itself must be tried then.
 */
export type Differences = Readonly<Record<string, Difference>>

const PAGE = join(import.meta.dirname, '../../docs/reference/compatibility.md')
const HEAD = `# Compatibility

What the clients of other services can do with Icebox. Written by \`tests/compat\`, which runs each client as it was published
against a server with sandboxes: the calls are those that the client itself exports, and one that is neither tried nor listed
as different fails the run. \`UPDATE_DOCS=1 npm test -- tests/compat/*.test.ts\` writes it anew.
`

const matches = (pattern: string, call: string): boolean =>
  pattern.endsWith('.*') ? call.startsWith(pattern.slice(0, -1)) : pattern.replace(/ \(.*\)$/, '') === call
const isOption = (pattern: string): boolean => pattern.endsWith(')')

/** What has to be put right before the table is true. Empty when all is well. */
export function faultsOf({ all, called }: CallList, differences: Differences): string[] {
  const listed = Object.keys(differences)
  const whole = listed.filter((pattern) => !isOption(pattern))
  return [
    ...all
      .filter((call) => !called.includes(call) && !whole.some((pattern) => matches(pattern, call)))
      .map((call) => `${call} is tried by no test and listed nowhere`),
    ...listed
      .filter((pattern) => !all.some((call) => matches(pattern, call)))
      .map((pattern) => `${pattern} is listed, but the client has no such call`),
    ...called
      .filter((call) => !all.includes(call))
      .map((call) => `${call} was called, but the client does not export it`),
  ]
}

/** The part of the page about one client. The same results give the same text. */
export function section(client: string, { all }: CallList, differences: Differences): string {
  const listed = Object.entries(differences).sort(([a], [b]) => (a < b ? -1 : 1))
  const whole = listed.filter(([pattern]) => !isOption(pattern))
  const same = all.filter((call) => !whole.some(([pattern]) => matches(pattern, call)))
  const rows = listed.map(([pattern, { is, why }]) => `| \`${pattern}\` | ${is} | ${why.replaceAll('|', '\\|')} |`)
  const table = rows.length === 0 ? [] : ['', '| call | | why |', '|---|---|---|', ...rows]
  return [
    `## ${client}`,
    '',
    `${same.length} of ${all.length} calls behave as they do there: ${same.map((call) => `\`${call}\``).join(', ')}.`,
    ...table,
    '',
  ].join('\n')
}

/** The page with this section in its place by name. */
export function withSection(page: string, client: string, text: string): string {
  const sections = page.split(/^(?=## )/m).slice(1)
  const others = sections.filter((each) => !each.startsWith(`## ${client}\n`)).map((each) => each.trimEnd())
  return [HEAD.trimEnd(), ...[...others, text.trimEnd()].sort((a, b) => (a < b ? -1 : 1))].join('\n\n').concat('\n')
}

/**
 * Fails when a call was forgotten, or when the page says something else than this run. With UPDATE_DOCS it writes the page;
 * several files that do so at the same time take turns.
 */
export async function checkCompatibility(client: string, calls: CallList, differences: Differences): Promise<void> {
  const faults = faultsOf(calls, differences)
  if (faults.length > 0) throw new Error(`the compatibility of ${client}:\n  ${faults.join('\n  ')}`)
  const compare = async () => {
    const page = await readFile(PAGE, 'utf8').catch(() => '')
    const wanted = withSection(page, client, section(client, calls, differences))
    if (page === wanted) return
    if (process.env.UPDATE_DOCS === undefined)
      throw new Error(
        `docs/reference/compatibility.md is not what this run found of ${client}: run it with UPDATE_DOCS=1`,
      )
    await writeFile(PAGE, wanted)
  }
  await withLock(join(cacheDirectory(), 'compatibility.lock'), compare, AbortSignal.timeout(60_000))
}
