import { TEMPLATE } from '../arguments.ts'
import { define, SERVER_FLAGS } from '../command.ts'
import { printJson, printStyled } from '../output.ts'
import { serverOf } from '../server.ts'
import { templateFacts } from '../views.ts'

export const command = define({
  arguments: [TEMPLATE],
  flags: SERVER_FLAGS,
  async run({ arguments: { template: ref }, flags }) {
    const template = await serverOf(flags).templates.get(ref)
    if (flags.json) printJson(template)
    else printStyled(templateFacts(template))
    return 0
  },
})
