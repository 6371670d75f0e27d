import { once } from 'node:events'
import { SANDBOX } from '../arguments.ts'
import { define, SERVER_FLAGS } from '../command.ts'
import { indented, print, printJson, printJsonLine } from '../output.ts'
import { serverOf } from '../server.ts'

export const command = define({
  arguments: [SANDBOX],
  flags: {
    entries: { summary: 'With times, and with what became of the sandbox.' },
    follow: { summary: 'Go on with what comes, until Ctrl-C.', short: 'f' },
    ...SERVER_FLAGS,
  },
  async run({ arguments: { sandbox: ref }, flags }) {
    const sandbox = await serverOf(flags).sandboxes.connect(ref)
    if (flags.entries) {
      const entries = []
      for await (const entry of sandbox.logEntries({ follow: flags.follow })) {
        if (!flags.json) {
          const lead = `${entry.at}  ${entry.source.padEnd(9)}  `
          print(`${lead}${indented(entry.text.trimEnd(), lead.length)}`)
        } else if (flags.follow) printJsonLine(entry)
        else entries.push(entry)
      }
      if (flags.json && !flags.follow) printJson(entries)
      return 0
    }
    const decoder = new TextDecoder()
    let text = ''
    for await (const piece of await sandbox.logs({ follow: flags.follow })) {
      if (!flags.json) {
        if (!process.stdout.write(piece)) await once(process.stdout, 'drain')
      } else if (flags.follow) printJsonLine({ id: sandbox.id, text: decoder.decode(piece, { stream: true }) })
      else text += decoder.decode(piece, { stream: true })
    }
    if (flags.json && !flags.follow) printJson({ id: sandbox.id, text })
    return 0
  },
})
