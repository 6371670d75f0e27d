import { distrustKey } from '@icebox/snapshot'
import { define } from '../command.ts'
import { print, printJson } from '../output.ts'
import { dataDirectoryOf, KEY, publicKey, TRUST_FLAGS } from '../trust.ts'

export const command = define({
  arguments: [KEY],
  flags: TRUST_FLAGS,
  async run({ arguments: { key: text }, flags }) {
    const key = publicKey(text)
    await distrustKey(dataDirectoryOf(flags), key)
    if (flags.json) printJson({ id: key })
    else print(key)
    return 0
  },
})
