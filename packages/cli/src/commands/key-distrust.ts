import { distrustKey, type PublicKey, readKeys } from '@icebox/snapshot'
import { define } from '../command.ts'
import { Refusal } from '../failure.ts'
import { print, printJson } from '../output.ts'
import { dataDirectoryOf, isPublicKey, KEY, TRUST_FLAGS } from '../trust.ts'

async function named(directory: string, name: string): Promise<PublicKey> {
  const [only, ...others] = (await readKeys(directory)).trusted.filter((each) => each.name === name)
  const refuse = (code: string, message: string) =>
    new Refusal(code, message, 'Give the key itself, as `icebox key show` has it.')
  if (only === undefined) throw refuse('NotFound', `no trusted key is called ${JSON.stringify(name)}`)
  if (others.length > 0)
    throw refuse('Ambiguous', `${others.length + 1} trusted keys are called ${JSON.stringify(name)}`)
  return only.key
}

export const command = define({
  arguments: [{ ...KEY, summary: 'Public key, or the name of one in `key show`.' }],
  flags: TRUST_FLAGS,
  async run({ arguments: { key: text }, flags }) {
    const directory = dataDirectoryOf(flags)
    const key = isPublicKey(text) ? text : await named(directory, text)
    await distrustKey(directory, key)
    if (flags.json) printJson({ id: key })
    else print(key)
    return 0
  },
})
