import { SANDBOX } from '../arguments.ts'
import { define, SERVER_FLAGS } from '../command.ts'
import { printJson, printStyled } from '../output.ts'
import { serverOf } from '../server.ts'
import { sandboxFacts } from '../views.ts'

export const command = define({
  arguments: [SANDBOX],
  flags: SERVER_FLAGS,
  async run({ arguments: { sandbox }, flags }) {
    const { resource } = await serverOf(flags).sandboxes.connect(sandbox)
    if (flags.json) printJson(resource)
    else printStyled(sandboxFacts(resource))
    return 0
  },
})
