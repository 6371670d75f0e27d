import { define, SERVER_FLAGS } from '../command.ts'
import { note, printJson, printStyled, size, table } from '../output.ts'
import { serverOf } from '../server.ts'
import { COLLECTED_COLUMNS } from '../views.ts'

export const command = define({
  arguments: [],
  flags: { 'dry-run': { summary: 'Only say what would go.' }, ...SERVER_FLAGS },
  async run({ flags }) {
    const result = await serverOf(flags).collect({ dryRun: flags['dry-run'] })
    if (flags.json) printJson(result)
    else {
      printStyled(table(result.items, COLLECTED_COLUMNS))
      note(`${flags['dry-run'] ? 'would free' : 'freed'} ${size(result.bytes)}`)
    }
    return 0
  },
})
