import { SANDBOX } from '../arguments.ts'
import { define, SERVER_FLAGS } from '../command.ts'
import { note, print, printJson } from '../output.ts'
import { serverOf } from '../server.ts'
import { integer } from '../values.ts'

export const command = define({
  arguments: [SANDBOX],
  flags: {
    count: { summary: 'How many, 1 to 100. Default: 1.', value: 'N', short: 'n' },
    ...SERVER_FLAGS,
  },
  async run({ arguments: { sandbox: ref }, flags }) {
    const count = integer('--count', flags.count ?? '1', { min: 1, max: 100 })
    const sandbox = await serverOf(flags).sandboxes.connect(ref)
    const results = await sandbox.forkResults(count)
    const failed = results.filter((result) => 'error' in result)
    if (flags.json) printJson(results)
    else
      for (const result of results) {
        if ('sandbox' in result) print(result.sandbox.id)
        else note(`failed: ${result.error.message}`)
      }
    return failed.length === 0 ? 0 : 1
  },
})
