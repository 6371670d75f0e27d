import { SANDBOX } from '../arguments.ts'
import { define, SERVER_FLAGS, UsageError } from '../command.ts'
import { serverOf } from '../server.ts'
import { ICEBOX_FAILED, runHere } from '../terminal.ts'
import { keyValues } from '../values.ts'

/** bash where it is, else sh; as a login shell, so that it reads the user's profile. */
const SHELL = ['sh', '-c', 'if command -v bash >/dev/null 2>&1; then exec bash -l; else exec sh -l; fi']

export const command = define({
  arguments: [SANDBOX],
  flags: {
    user: { summary: "Whose shell: name or uid. Default: the image's.", value: 'U' },
    cwd: { summary: "Directory it starts in. Default: the image's.", value: 'D' },
    env: { summary: 'Environment variable; may be given often.', value: 'K=V', multiple: true },
    ...SERVER_FLAGS,
  },
  failureStatus: ICEBOX_FAILED,
  async run({ arguments: { sandbox: ref }, flags }) {
    if (flags.json) throw new UsageError('a shell is for people: use `icebox exec --json`')
    const { user, cwd } = flags
    const env = keyValues('--env', flags.env)
    const sandbox = await serverOf(flags).sandboxes.connect(ref)
    // A script on stdin is read by a shell without a terminal.
    const tty = process.stdin.isTTY === true
    return (await runHere(sandbox, { argv: SHELL, user, cwd, env, tty, interactive: true })).status
  },
})
