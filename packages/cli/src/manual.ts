import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { flagUsage, usage } from './command.ts'
import { COMMANDS } from './commands.ts'

/**
 * The part of docs/reference/cli.md that follows from the definitions of the commands. `node packages/cli/src/manual.ts` writes
 * it anew, a test fails when it is not as it should be.
 */

export const PAGE = join(import.meta.dirname, '../../../docs/reference/cli.md')
const BEGIN = '<!-- from here on made of the definitions of the commands: node packages/cli/src/manual.ts -->\n'

const cell = (text: string): string => text.replaceAll('|', '\\|')

async function commandReference(words: string): Promise<string> {
  const entry = COMMANDS[words]
  if (entry === undefined) throw new TypeError(`no command ${words}`)
  const { command } = await entry.load()
  const rows = [
    ...[...command.arguments, ...(command.rest === undefined ? [] : [command.rest])].map(
      ({ name, summary }) => [name.toUpperCase(), summary] as const,
    ),
    ...Object.entries(command.flags).map(([name, flag]) => [flagUsage(name, flag), flag.summary] as const),
  ]
  return [
    `### ${words}`,
    '',
    entry.summary,
    '',
    '```',
    usage(words, command),
    '```',
    '',
    '| | |',
    '|---|---|',
    ...rows.map(([left, right]) => `| \`${cell(left)}\` | ${cell(right)} |`),
    '',
  ].join('\n')
}

/** The whole page: what is written by hand, as it is, and what is not. */
export async function manual(): Promise<string> {
  const page = await readFile(PAGE, 'utf8')
  const end = page.indexOf(BEGIN)
  if (end === -1) throw new TypeError(`${PAGE} has lost the line ${BEGIN}`)
  const commands: string[] = []
  for (const words of Object.keys(COMMANDS)) commands.push(await commandReference(words))
  return `${page.slice(0, end)}${BEGIN}\n${commands.join('\n')}`
}

if (import.meta.main) await writeFile(PAGE, await manual())
