import { define, SERVER_FLAGS } from '../command.ts'
import { printJson, printStyled, table } from '../output.ts'
import { serverOf } from '../server.ts'
import { SNAPSHOT_COLUMNS } from '../views.ts'

export const command = define({
  arguments: [],
  flags: SERVER_FLAGS,
  async run({ flags }) {
    const snapshots = await serverOf(flags).snapshots.list()
    if (flags.json) printJson(snapshots)
    else printStyled(table(snapshots, SNAPSHOT_COLUMNS))
    return 0
  },
})
