import { SANDBOX, SNAPSHOT } from '../arguments.ts'
import { define, SERVER_FLAGS } from '../command.ts'
import { print, printJson } from '../output.ts'
import { serverOf } from '../server.ts'

export const command = define({
  arguments: [SANDBOX, SNAPSHOT],
  flags: SERVER_FLAGS,
  async run({ arguments: { sandbox: ref, snapshot }, flags }) {
    const sandbox = await serverOf(flags).sandboxes.connect(ref)
    const resource = await sandbox.rollback(snapshot)
    if (flags.json) printJson(resource)
    else print(resource.id)
    return 0
  },
})
