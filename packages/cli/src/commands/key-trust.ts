import { trustKey } from '@icebox/snapshot'
import { define } from '../command.ts'
import { print, printJson } from '../output.ts'
import { dataDirectoryOf, KEY, publicKey, TRUST_FLAGS } from '../trust.ts'

export const command = define({
  arguments: [KEY],
  flags: { name: { summary: 'What to call it by in `key show`.', value: 'N' }, ...TRUST_FLAGS },
  async run({ arguments: { key: text }, flags }) {
    const key = publicKey(text)
    const name = flags.name?.trim() ?? ''
    await trustKey(dataDirectoryOf(flags), { key, name })
    if (flags.json) printJson({ id: key, name })
    else print(key)
    return 0
  },
})
