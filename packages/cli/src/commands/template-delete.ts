import { TEMPLATE } from '../arguments.ts'
import { define, SERVER_FLAGS } from '../command.ts'
import { print, printJson } from '../output.ts'
import { serverOf } from '../server.ts'

export const command = define({
  arguments: [TEMPLATE],
  flags: SERVER_FLAGS,
  async run({ arguments: { template: ref }, flags }) {
    const { templates } = serverOf(flags)
    // The id first: a name says nothing any more once it is gone.
    const { id } = await templates.get(ref)
    await templates.delete(id)
    if (flags.json) printJson({ id })
    else print(id)
    return 0
  },
})
