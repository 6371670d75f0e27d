import { connectionSettings } from '@icebox/sdk'
import { define, SERVER_FLAGS } from '../command.ts'
import { Refusal } from '../failure.ts'
import { print, printJson } from '../output.ts'

/** As a word of sh, bash, zsh and fish. */
const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`

export const command = define({
  arguments: [],
  flags: SERVER_FLAGS,
  async run({ flags }) {
    const { url, apiKey } = connectionSettings({ url: flags.url, dataDirectory: flags.data })
    if (apiKey === undefined)
      throw new Refusal(
        'Unauthorized',
        'no API key was found',
        'Start the server (`icebox up -d`), which makes one; or set ICEBOX_API_KEY, name the data directory with --data, or run as the user who may read it.',
      )
    const address = url.replace(/\/+$/, '')
    const variables = { E2B_API_URL: address, E2B_SANDBOX_URL: address, E2B_API_KEY: apiKey }
    if (flags.json) printJson(variables)
    else
      print(
        Object.entries(variables)
          .map(([name, value]) => `export ${name}=${quoted(value)}`)
          .join('\n'),
      )
    return 0
  },
})
