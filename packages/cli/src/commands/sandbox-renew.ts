import { SANDBOX } from '../arguments.ts'
import { define, SERVER_FLAGS } from '../command.ts'
import { life } from '../lifetime.ts'
import { print, printJson } from '../output.ts'
import { serverOf } from '../server.ts'

const NEVER = 'never'

export const command = define({
  arguments: [SANDBOX, { name: 'time', summary: `From now, such as 30m, or ${NEVER}.` }],
  flags: {
    'only-extend': { summary: 'Leave an end that is later already.' },
    ...SERVER_FLAGS,
  },
  async run({ arguments: { sandbox: ref, time }, flags }) {
    const timeout = time === NEVER ? null : await life('TIME', time)
    const sandbox = await serverOf(flags).sandboxes.connect(ref)
    const renewed = await sandbox.renew({ timeout, onlyExtend: flags['only-extend'] })
    if (flags.json) printJson(renewed)
    else print(renewed.expiresAt ?? NEVER)
    return 0
  },
})
