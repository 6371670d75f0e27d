import { SANDBOX } from '../arguments.ts'
import { define, SERVER_FLAGS } from '../command.ts'
import { PAUSE_KINDS } from '../lifetime.ts'
import { print, printJson } from '../output.ts'
import { serverOf } from '../server.ts'
import { oneOf } from '../values.ts'

export const command = define({
  arguments: [SANDBOX],
  flags: {
    kind: { summary: 'memory (with its processes, the default) or filesystem (only its files).', value: 'KIND' },
    ...SERVER_FLAGS,
  },
  async run({ arguments: { sandbox: ref }, flags }) {
    const kind = oneOf('--kind', flags.kind ?? 'memory', PAUSE_KINDS)
    const sandbox = await serverOf(flags).sandboxes.connect(ref)
    const resource = await sandbox.pause({ kind })
    if (flags.json) printJson(resource)
    else print(resource.id)
    return 0
  },
})
