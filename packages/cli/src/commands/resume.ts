import { SANDBOX } from '../arguments.ts'
import { define, SERVER_FLAGS } from '../command.ts'
import { life } from '../lifetime.ts'
import { print, printJson } from '../output.ts'
import { serverOf } from '../server.ts'

export const command = define({
  arguments: [SANDBOX],
  flags: {
    timeout: { summary: 'How long it is to live at least, such as 30m. Default: as at first.', value: 'TIME' },
    ...SERVER_FLAGS,
  },
  async run({ arguments: { sandbox: ref }, flags }) {
    const timeout = flags.timeout === undefined ? undefined : await life('--timeout', flags.timeout)
    const sandbox = await serverOf(flags).sandboxes.connect(ref)
    await sandbox.ensureRunning({ timeout })
    if (flags.json) printJson(sandbox.resource)
    else print(sandbox.id)
    return 0
  },
})
