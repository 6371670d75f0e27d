import type { WireSnapshot } from '@icebox/sdk'
import { define, SERVER_FLAGS } from '../command.ts'
import { printJson, printStyled } from '../output.ts'
import { serverOf } from '../server.ts'
import { drawTree, treeOf } from '../tree.ts'

export const command = define({
  arguments: [],
  flags: SERVER_FLAGS,
  async run({ flags }) {
    // Hidden ones too: a child of a pause or a fork would look like an orphan without them.
    const snapshots: WireSnapshot[] = await serverOf(flags).snapshots.list({ hidden: true })
    const roots = treeOf(snapshots)
    if (flags.json) printJson(roots)
    else if (roots.length > 0) printStyled(drawTree(roots))
    return 0
  },
})
