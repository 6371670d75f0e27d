import { define, SERVER_FLAGS } from '../command.ts'
import { printJson, printStyled, table } from '../output.ts'
import { serverOf } from '../server.ts'
import { KEY_COLUMNS } from '../views.ts'

export const command = define({
  arguments: [],
  flags: SERVER_FLAGS,
  async run({ flags }) {
    const keys = await serverOf(flags).keys.list()
    if (flags.json) printJson(keys)
    else printStyled(table(keys, KEY_COLUMNS))
    return 0
  },
})
