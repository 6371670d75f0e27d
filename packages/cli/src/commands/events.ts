import { type Icebox, isIceboxError, type WireEvent } from '@icebox/sdk'
import { define, SERVER_FLAGS } from '../command.ts'
import { type Column, note, print, printJson, printJsonLine, printStyled, table } from '../output.ts'
import { serverOf } from '../server.ts'
import { visible } from '../visible.ts'

const COLUMNS: Column<WireEvent>[] = [
  { title: 'AT', cell: ({ at }) => at },
  { title: 'KIND', cell: ({ kind }) => kind },
  { title: 'NAME', cell: ({ resource }) => resource },
  { title: 'FROM', cell: ({ from }) => from ?? '-' },
  { title: 'TO', cell: ({ to }) => to },
  { title: 'WHY', cell: ({ reason, message, verb }) => [reason, message].filter(Boolean).join(': ') || (verb ?? '-') },
]

/** By which its events name it. What is gone has events too, so that a name that nothing has stands for itself. */
async function nameOf(server: Icebox, ref: string): Promise<string> {
  for (const find of [
    () => server.templates.get(ref),
    () => server.sandboxes.connect(ref),
    () => server.snapshots.get(ref),
  ])
    try {
      return (await find()).id
    } catch (thrown) {
      if (!isIceboxError(thrown, 'NotFound')) throw thrown
    }
  return ref
}

export const command = define({
  arguments: [
    {
      name: 'resource',
      summary: 'A sandbox or snapshot, by the whole id when it is gone, or a template. Default: all.',
      optional: true,
    },
  ],
  flags: {
    follow: { summary: 'Go on with what comes, until Ctrl-C.', short: 'f' },
    ...SERVER_FLAGS,
  },
  async run({ arguments: { resource: ref }, flags }) {
    const server = serverOf(flags)
    const { events } = server
    const resource = ref === undefined ? undefined : await nameOf(server, ref)
    if (flags.follow) {
      // One line each, as they come: widths of what is to come are not known.
      for await (const event of events.follow({ resource })) {
        if (flags.json) printJsonLine(event)
        else print(COLUMNS.map(({ cell }) => visible(cell(event))).join('  '))
      }
      return 0
    }
    const past = await events.list({ resource })
    if (flags.json) printJson(past)
    else {
      printStyled(table(past, COLUMNS))
      if (ref !== undefined && past.length === 0) note(`nothing is kept of ${ref}`)
    }
    return 0
  },
})
