import { define, SERVER_FLAGS, UsageError } from '../command.ts'
import { copy } from '../copy/copy.ts'
import { localPlace } from '../copy/local.ts'
import { type Operand, operand } from '../copy/operand.ts'
import type { Place } from '../copy/place.ts'
import { sandboxPlace } from '../copy/sandbox.ts'
import { interruptible } from '../interrupt.ts'
import { notADash } from '../local-file.ts'
import { note, printJson } from '../output.ts'
import { ProgressBar } from '../progress.ts'
import { serverOf } from '../server.ts'

const WHERE = 'A path here, or SANDBOX:PATH.'

export const command = define({
  arguments: [
    { name: 'from', summary: `${WHERE} A directory with all it holds; DIR/. is only what it holds.` },
    { name: 'to', summary: `${WHERE} Into it when it is a directory.` },
  ],
  flags: SERVER_FLAGS,
  async run({ arguments: given, flags }) {
    for (const path of [given.from, given.to]) notADash(path)
    const [from, to] = [operand(given.from), operand(given.to)]
    if (from.sandbox === undefined && to.sandbox === undefined)
      throw new UsageError('one of the two must be in a sandbox: SANDBOX:PATH')
    const server = serverOf(flags)
    const place = async ({ sandbox }: Operand): Promise<Place> =>
      sandbox === undefined ? localPlace : sandboxPlace((await server.sandboxes.connect(sandbox)).files)
    using bar = new ProgressBar(`copy ${given.from}`, flags.json)
    const source = { place: await place(from), path: from.path }
    const target = { place: await place(to), path: to.path }
    const copied = await interruptible((stop) => copy(source, target, bar.step, stop))
    bar.done()
    if (flags.json) printJson({ from: given.from, to: given.to, ...copied })
    else for (const path of copied.skipped) note(`skipped ${path}: neither file, directory nor symlink`)
    return 0
  },
})
