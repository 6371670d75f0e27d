import { type Command, UsageError } from './command.ts'
import { COMMANDS } from './commands.ts'
import { Refusal, report } from './failure.ts'
import { explanation, overview } from './help.ts'
import { Interrupted } from './interrupt.ts'
import { note, print, printStyled } from './output.ts'
import { outputLost } from './output-lost.ts'
import { split, unknownCommand } from './words.ts'

let command: Command | undefined
let json = false
/** The status to exit with, once output has nowhere to go. */
let lost: Promise<number> | undefined

/** Exit status: 0 done, 1 failed, 2 wrong usage; exec, run and shell pass on that of their command. */
async function main(argv: readonly string[]): Promise<number> {
  const { words, group, before, after } = split(argv[0] === 'help' ? [...argv.slice(1), '--help'] : argv)
  const given = [...before, ...after]
  const terminator = given.indexOf('--')
  const ours = terminator === -1 ? given : given.slice(0, terminator)
  json = ours.includes('--json')
  const wantsHelp = ours.includes('--help') || ours.includes('-h')
  try {
    const entry = words === undefined ? undefined : COMMANDS[words]
    if (words === undefined || entry === undefined) {
      if (given.length === 0 && group === undefined) printStyled(overview())
      else if (wantsHelp && given.every((word) => word.startsWith('-'))) printStyled(overview(group))
      else if (group === undefined && given[0] === '--version') print((await import('./version.ts')).VERSION)
      else throw unknownCommand(group, given)
      return 0
    }
    command = (await entry.load()).command
    if (wantsHelp) {
      printStyled(explanation(words, entry.summary, command))
      return 0
    }
    return await command.execute(given)
  } catch (thrown) {
    // What fails because its output is lost, or for what is done about that, is no error besides.
    if (lost !== undefined) return lost
    if (thrown instanceof Interrupted) {
      note(thrown.message)
      return thrown.status
    }
    report(thrown, json)
    if (thrown instanceof UsageError) return 2
    return (thrown instanceof Refusal ? thrown.status : undefined) ?? command?.failureStatus ?? 1
  }
}

for (const stream of [process.stdout, process.stderr])
  stream.on('error', (error: Error) => {
    lost ??= outputLost(error, command?.failureStatus ?? 1, json)
    // A command that only waits would not notice.
    void lost.then((status) => process.exit(status))
  })
const status = await main(process.argv.slice(2))
// What was written to a pipe whose reader is slow is still here, and an exit would lose it.
for (const stream of [process.stdout, process.stderr])
  await new Promise<void>((resolve) => stream.write('', () => resolve()))
// Nothing that is still open, such as a stdin that nobody ends, holds the command back.
process.exit(lost === undefined ? status : await lost)
