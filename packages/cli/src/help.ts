import { type Command, flagUsage, HELP, usage } from './command.ts'
import { COMMANDS } from './commands.ts'
import { paint } from './output.ts'

const columns = (rows: readonly (readonly [string, string])[]): string => {
  const width = Math.max(...rows.map(([left]) => left.length))
  return rows.map(([left, right]) => `  ${paint('cyan', left.padEnd(width))}  ${right}`).join('\n')
}
const title = (text: string): string => paint('bold', text)

/** Of all commands, or of those that begin with a word such as `snapshot`. */
export function overview(group?: string): string {
  const rows = Object.entries(COMMANDS)
    .filter(([words]) => group === undefined || words.startsWith(`${group} `))
    .map(([words, { summary }]) => [words, summary] as const)
  return [
    group === undefined ? 'Computers for AI agents that start, fork, pause and resume from snapshots.\n' : '',
    `${title('Usage')}  icebox ${group ?? 'COMMAND'} ...`,
    '',
    title('Commands'),
    columns(rows),
    '',
    'Every command takes --json, and --help, which explains it; --version says which icebox this is. Sandboxes, snapshots and',
    'images are named by id, name or unique prefix of the id. The server is that of --url or ICEBOX_URL, else the one of this',
    'machine (--data or ICEBOX_DATA).',
  ]
    .join('\n')
    .trimStart()
}

export function explanation(words: string, summary: string, command: Command): string {
  const positionals = [...command.arguments, ...(command.rest === undefined ? [] : [command.rest])]
  const flags = Object.entries({ ...command.flags, help: HELP })
  return [
    summary,
    '',
    `${title('Usage')}  ${usage(words, command)}`,
    ...(positionals.length === 0
      ? []
      : [
          '',
          title('Arguments'),
          columns(positionals.map(({ name, summary: text }) => [name.toUpperCase(), text] as const)),
        ]),
    '',
    title('Flags'),
    columns(flags.map(([name, flag]) => [flagUsage(name, flag), flag.summary] as const)),
  ].join('\n')
}
