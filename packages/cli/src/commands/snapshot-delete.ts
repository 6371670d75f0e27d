import { SNAPSHOT } from '../arguments.ts'
import { define, SERVER_FLAGS } from '../command.ts'
import { print, printJson } from '../output.ts'
import { serverOf } from '../server.ts'

export const command = define({
  arguments: [SNAPSHOT],
  flags: SERVER_FLAGS,
  async run({ arguments: { snapshot: ref }, flags }) {
    const { snapshots } = serverOf(flags)
    // The id first: a name says nothing any more once it is gone.
    const { id } = await snapshots.get(ref)
    await snapshots.delete(id)
    if (flags.json) printJson({ id })
    else print(id)
    return 0
  },
})
