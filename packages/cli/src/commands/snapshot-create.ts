import { SANDBOX } from '../arguments.ts'
import { define, SERVER_FLAGS } from '../command.ts'
import { PAUSE_KINDS } from '../lifetime.ts'
import { print, printJson } from '../output.ts'
import { serverOf } from '../server.ts'
import { moment, oneOf } from '../values.ts'

export const command = define({
  arguments: [SANDBOX],
  flags: {
    name: { summary: 'Name to call it by.', value: 'N' },
    kind: { summary: 'memory (with its processes, the default) or filesystem (only its files).', value: 'KIND' },
    expires: { summary: 'Delete it after this time, such as 7d, or at this one, such as 2026-01-31.', value: 'TIME' },
    stop: { summary: 'Delete the sandbox once the snapshot is durable.' },
    ...SERVER_FLAGS,
  },
  async run({ arguments: { sandbox: ref }, flags }) {
    const { name, stop } = flags
    const kind = oneOf('--kind', flags.kind ?? 'memory', PAUSE_KINDS)
    if (name !== undefined) (await import('../limits.ts')).displayName('--name', name)
    const expiresAt = flags.expires === undefined ? undefined : moment('--expires', flags.expires, 1)
    const sandbox = await serverOf(flags).sandboxes.connect(ref)
    const snapshot = await sandbox.snapshot({ name, kind, stop, expiresAt })
    if (flags.json) printJson(snapshot)
    else print(snapshot.id)
    return 0
  },
})
