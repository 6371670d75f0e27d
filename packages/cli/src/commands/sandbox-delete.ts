import { SANDBOX } from '../arguments.ts'
import { define, SERVER_FLAGS } from '../command.ts'
import { print, printJson } from '../output.ts'
import { serverOf } from '../server.ts'

export const command = define({
  arguments: [SANDBOX],
  flags: SERVER_FLAGS,
  async run({ arguments: { sandbox: ref }, flags }) {
    const sandbox = await serverOf(flags).sandboxes.connect(ref)
    await sandbox.delete()
    if (flags.json) printJson({ id: sandbox.id })
    else print(sandbox.id)
    return 0
  },
})
