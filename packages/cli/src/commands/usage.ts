import { define, SERVER_FLAGS } from '../command.ts'
import { printJson, printStyled, table } from '../output.ts'
import { serverOf } from '../server.ts'
import { moment } from '../values.ts'
import { USAGE_COLUMNS } from '../views.ts'

export const command = define({
  arguments: [],
  flags: {
    from: {
      summary: 'Only sandboxes that existed at this time or later, such as 2026-01-31 or 7d (ago).',
      value: 'TIME',
    },
    to: { summary: 'Only sandboxes that existed before this time.', value: 'TIME' },
    ...SERVER_FLAGS,
  },
  async run({ flags }) {
    const { from, to } = flags
    const usages = await serverOf(flags).usage({
      from: from === undefined ? undefined : moment('--from', from, -1),
      to: to === undefined ? undefined : moment('--to', to, -1),
    })
    if (flags.json) printJson(usages)
    else printStyled(table(usages, USAGE_COLUMNS))
    return 0
  },
})
