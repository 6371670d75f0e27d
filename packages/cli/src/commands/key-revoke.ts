import { define, SERVER_FLAGS } from '../command.ts'
import { print, printJson } from '../output.ts'
import { serverOf } from '../server.ts'

export const command = define({
  arguments: [{ name: 'id', summary: 'Id of an API key in `key list`, or a unique prefix of it.' }],
  flags: SERVER_FLAGS,
  async run({ arguments: { id }, flags }) {
    await serverOf(flags).keys.revoke(id)
    if (flags.json) printJson({ id })
    else print(id)
    return 0
  },
})
