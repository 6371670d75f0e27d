import { once } from 'node:events'
import { SANDBOX } from '../arguments.ts'
import { define, SERVER_FLAGS } from '../command.ts'
import { printJson } from '../output.ts'
import { serverOf } from '../server.ts'

export const command = define({
  arguments: [SANDBOX],
  flags: {
    follow: { summary: 'Go on with what comes, until Ctrl-C.', short: 'f' },
    ...SERVER_FLAGS,
  },
  async run({ arguments: { sandbox: ref }, flags }) {
    const sandbox = await serverOf(flags).sandboxes.connect(ref)
    const decoder = new TextDecoder()
    let text = ''
    for await (const piece of await sandbox.logs({ follow: flags.follow })) {
      if (!flags.json) {
        if (!process.stdout.write(piece)) await once(process.stdout, 'drain')
      } else if (flags.follow)
        process.stdout.write(`${JSON.stringify({ id: sandbox.id, text: decoder.decode(piece, { stream: true }) })}\n`)
      else text += decoder.decode(piece, { stream: true })
    }
    if (flags.json && !flags.follow) printJson({ id: sandbox.id, text })
    return 0
  },
})
