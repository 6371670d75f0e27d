import { SNAPSHOT } from '../arguments.ts'
import { define, SERVER_FLAGS } from '../command.ts'
import { printJson, printStyled } from '../output.ts'
import { serverOf } from '../server.ts'
import { snapshotFacts } from '../views.ts'

export const command = define({
  arguments: [SNAPSHOT],
  flags: SERVER_FLAGS,
  async run({ arguments: { snapshot: ref }, flags }) {
    const snapshot = await serverOf(flags).snapshots.get(ref)
    if (flags.json) printJson(snapshot)
    else printStyled(snapshotFacts(snapshot))
    return 0
  },
})
