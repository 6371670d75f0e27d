import { define, SERVER_FLAGS } from '../command.ts'
import { printJson, printStyled, table } from '../output.ts'
import { serverOf } from '../server.ts'
import { SANDBOX_COLUMNS } from '../views.ts'

export const command = define({
  arguments: [],
  flags: SERVER_FLAGS,
  async run({ flags }) {
    const resources = (await serverOf(flags).sandboxes.list()).map(({ resource }) => resource)
    if (flags.json) printJson(resources)
    else printStyled(table(resources, SANDBOX_COLUMNS))
    return 0
  },
})
