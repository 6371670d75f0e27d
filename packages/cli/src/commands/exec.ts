import { COMMAND, checkProgram, SANDBOX } from '../arguments.ts'
import { define, SERVER_FLAGS, UsageError } from '../command.ts'
import { serverOf } from '../server.ts'
import { ICEBOX_FAILED, runForJson, runHere } from '../terminal.ts'
import { keyValues, timeMs } from '../values.ts'

export const command = define({
  arguments: [SANDBOX],
  rest: COMMAND,
  flags: {
    interactive: { summary: 'Pass stdin on even when it is a terminal.', short: 'i' },
    tty: { summary: 'Give the command a terminal.', short: 't' },
    user: { summary: "Whose rights it has: name or uid. Default: the image's.", value: 'U' },
    cwd: { summary: "Directory it starts in. Default: the image's.", value: 'D' },
    env: { summary: 'Environment variable; may be given often.', value: 'K=V', multiple: true },
    timeout: { summary: 'Kill it after this time, such as 30s; the exit status is then 124.', value: 'T' },
    ...SERVER_FLAGS,
  },
  failureStatus: ICEBOX_FAILED,
  async run({ arguments: { sandbox: ref }, flags, rest: argv }) {
    if (flags.json && flags.tty) throw new UsageError('--json and --tty exclude each other')
    checkProgram(argv)
    const { user, cwd, tty, interactive } = flags
    const env = keyValues('--env', flags.env)
    const timeoutMs = flags.timeout === undefined ? undefined : timeMs('--timeout', flags.timeout)
    const sandbox = await serverOf(flags).sandboxes.connect(ref)
    const request = { argv, user, cwd, env, timeoutMs, tty, interactive }
    return flags.json ? runForJson(sandbox, request) : (await runHere(sandbox, request)).status
  },
})
