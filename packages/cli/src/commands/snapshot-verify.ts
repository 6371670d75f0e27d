import { SNAPSHOT } from '../arguments.ts'
import { define, SERVER_FLAGS } from '../command.ts'
import { print, printJson } from '../output.ts'
import { ProgressBar } from '../progress.ts'
import { serverOf } from '../server.ts'

export const command = define({
  arguments: [SNAPSHOT],
  flags: SERVER_FLAGS,
  async run({ arguments: { snapshot: ref }, flags }) {
    const { snapshots } = serverOf(flags)
    const { id } = await snapshots.get(ref)
    using bar = new ProgressBar(`verify ${id}`, flags.json)
    const faults = await snapshots.verify(id)
    bar.done()
    if (flags.json) printJson({ id, faults })
    else if (faults.length === 0) print(`${id}: every byte is as it was written`)
    else for (const { blob, problem } of faults) print(`${blob}: ${problem}`)
    return faults.length === 0 ? 0 : 1
  },
})
