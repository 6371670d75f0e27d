import { type Command, UsageError } from './command.ts'
import { COMMANDS } from './commands.ts'
import { Refusal, report } from './failure.ts'
import { explanation, overview } from './help.ts'
import { Interrupted } from './interrupt.ts'
import { note, print } from './output.ts'
import { split, unknownCommand } from './words.ts'

/** Exit status: 0 done, 1 failed, 2 wrong usage; exec, run and shell pass on that of their command. */
async function main(argv: readonly string[]): Promise<number> {
  const { words, group, before, after } = split(argv[0] === 'help' ? [...argv.slice(1), '--help'] : argv)
  const given = [...before, ...after]
  const terminator = given.indexOf('--')
  const ours = terminator === -1 ? given : given.slice(0, terminator)
  const wantsHelp = ours.includes('--help') || ours.includes('-h')
  let command: Command | undefined
  try {
    const entry = words === undefined ? undefined : COMMANDS[words]
    if (words === undefined || entry === undefined) {
      if (given.length === 0 && group === undefined) print(overview())
      else if (wantsHelp && given.every((word) => word.startsWith('-'))) print(overview(group))
      else if (group === undefined && given[0] === '--version') print((await import('./version.ts')).VERSION)
      else throw unknownCommand(group, given)
      return 0
    }
    command = (await entry.load()).command
    if (wantsHelp) {
      print(explanation(words, entry.summary, command))
      return 0
    }
    return await command.execute(given)
  } catch (thrown) {
    if (thrown instanceof Interrupted) {
      note(thrown.message)
      return thrown.status
    }
    report(thrown, ours.includes('--json'))
    if (thrown instanceof UsageError) return 2
    return (thrown instanceof Refusal ? thrown.status : undefined) ?? command?.failureStatus ?? 1
  }
}

// A reader that has seen enough, as in `icebox ps | head`, is no failure of ours.
for (const stream of [process.stdout, process.stderr])
  stream.on('error', (error: Error) => {
    process.exit('code' in error && error.code === 'EPIPE' ? 141 : 1)
  })
const status = await main(process.argv.slice(2))
// What was written to a pipe whose reader is slow is still here, and an exit would lose it.
for (const stream of [process.stdout, process.stderr])
  await new Promise<void>((resolve) => stream.write('', () => resolve()))
// Nothing that is still open, such as a stdin that nobody ends, holds the command back.
process.exit(status)
