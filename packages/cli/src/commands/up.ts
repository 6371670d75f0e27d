import { resolve } from 'node:path'
import { define, JSON_FLAG } from '../command.ts'
import { address } from '../values.ts'

export const command = define({
  arguments: [],
  flags: {
    detach: { summary: 'Start it in the background, and come back when it answers.', short: 'd' },
    data: { summary: 'Data directory. Default: ICEBOX_DATA, else /var/lib/icebox.', value: 'DIR' },
    listen: { summary: 'Address it listens on, port 0 for any. Default: 127.0.0.1:7070.', value: 'ADDR' },
    limits: {
      summary: 'File of JSON with limits other than the defaults; see docs/reference/limits.md.',
      value: 'FILE',
    },
    'no-base': { summary: 'Do not make the template base when there is none of that name.' },
    ...JSON_FLAG,
  },
  async run({ flags: { detach, data, listen = '127.0.0.1:7070', limits, 'no-base': noBase, json } }) {
    const { defaultDataDirectory } = await import('@icebox/snapshot')
    const options = {
      dataDirectory: data === undefined ? defaultDataDirectory() : resolve(data),
      listen: address('--listen', listen),
      ...(limits === undefined
        ? {}
        : {
            limits: {
              file: resolve(limits),
              values: await (await import('../up/limits.ts')).readLimits(resolve(limits)),
            },
          }),
      base: !noBase,
      json,
    }
    if (detach) await (await import('../up/detached.ts')).startDetached(options)
    else await (await import('../up/foreground.ts')).serve(options)
    return 0
  },
})
