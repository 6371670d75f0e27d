import { TEMPLATE } from '../arguments.ts'
import { define, SERVER_FLAGS, UsageError } from '../command.ts'
import { LIFETIME_FLAGS, lifetime } from '../lifetime.ts'
import { print, printJson } from '../output.ts'
import { presentImage } from '../present-image.ts'
import { serverOf } from '../server.ts'
import { keyValues, notEmpty } from '../values.ts'

export const command = define({
  arguments: [{ ...TEMPLATE, optional: true, summary: 'What to make it from; instead: --snapshot or --image.' }],
  flags: {
    name: { summary: 'Name to call it by.', value: 'NAME' },
    env: { summary: 'Environment variable of everything run in it; may be given often.', value: 'K=V', multiple: true },
    metadata: { summary: 'Label; may be given often.', value: 'K=V', multiple: true },
    ...LIFETIME_FLAGS,
    snapshot: { summary: 'Make it from a snapshot: id, name or unique prefix.', value: 'ID' },
    image: { summary: 'Make it from an image.', value: 'REF' },
    ...SERVER_FLAGS,
  },
  async run({ arguments: { template }, flags }) {
    const sources = [template, flags.snapshot, flags.image].filter((source) => source !== undefined)
    if (sources.length !== 1) throw new UsageError('give exactly one of TEMPLATE, --snapshot and --image')
    const { snapshot, name } = flags
    if (snapshot !== undefined) notEmpty('--snapshot', snapshot)
    if (flags.image !== undefined) notEmpty('--image', flags.image)
    const options = {
      name: name === undefined ? undefined : (await import('../limits.ts')).displayName('--name', name),
      env:
        flags.env.length === 0 ? {} : (await import('../limits.ts')).variables('--env', keyValues('--env', flags.env)),
      metadata: keyValues('--metadata', flags.metadata),
      ...(await lifetime(flags)),
    }
    const server = serverOf(flags)
    const image = flags.image === undefined ? undefined : await presentImage(server, flags.image, flags.json)
    const { resource } = await server.sandboxes.create({ ...options, template, snapshot, image })
    if (flags.json) printJson(resource)
    else print(resource.id)
    return 0
  },
})
