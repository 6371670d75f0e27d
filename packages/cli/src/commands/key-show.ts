import { readKeys } from '@icebox/snapshot'
import { define } from '../command.ts'
import { printJson, printStyled, table } from '../output.ts'
import { dataDirectoryOf, TRUST_FLAGS } from '../trust.ts'

export const command = define({
  arguments: [],
  flags: TRUST_FLAGS,
  async run({ flags }) {
    const { publicKey, trusted } = await readKeys(dataDirectoryOf(flags))
    const keys = [
      { id: publicKey, name: 'this installation' },
      ...trusted.map(({ key, name }) => ({ id: key, name: name || '-' })),
    ]
    if (flags.json) printJson({ id: publicKey, trusted: trusted.map(({ key, name }) => ({ id: key, name })) })
    else
      printStyled(
        table(keys, [
          { title: 'KEY', cell: ({ id }) => id },
          { title: 'NAME', cell: ({ name }) => name },
        ]),
      )
    return 0
  },
})
