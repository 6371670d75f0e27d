import { define, SERVER_FLAGS } from '../command.ts'
import { printJson, printStyled, table } from '../output.ts'
import { serverOf } from '../server.ts'
import { TEMPLATE_COLUMNS } from '../views.ts'

export const command = define({
  arguments: [],
  flags: SERVER_FLAGS,
  async run({ flags }) {
    const templates = await serverOf(flags).templates.list()
    if (flags.json) printJson(templates)
    else printStyled(table(templates, TEMPLATE_COLUMNS))
    return 0
  },
})
