import { resolve } from 'node:path'
import { define, JSON_FLAG, UsageError } from '../command.ts'
import { failureOf, report } from '../failure.ts'
import { isLasting, LASTING } from '../up/lasting.ts'
import { requireNodeFlags } from '../up/node-flags.ts'
import { address, domain, hostNameOf, hostOrNetwork, notEmpty, origin } from '../values.ts'

export const command = define({
  arguments: [],
  flags: {
    detach: { summary: 'Start it in the background, and come back when it answers.', short: 'd' },
    data: { summary: 'Data directory. Default: ICEBOX_DATA, else /var/lib/icebox.', value: 'DIR' },
    listen: { summary: 'Address it listens on, port 0 for any. Default: 127.0.0.1:7070.', value: 'ADDR' },
    domain: {
      summary: 'Domain all of whose names lead here: `<port>-<id>.DOMAIN` is a port of a sandbox.',
      value: 'DOMAIN',
      multiple: true,
    },
    'allow-host': {
      summary: 'Name by which it is called besides loopback, the address it listens on and --domain.',
      value: 'NAME',
      multiple: true,
    },
    'cors-origin': {
      summary: 'Origin whose web pages may call the API, such as https://app.example; `*` for all.',
      value: 'ORIGIN',
      multiple: true,
    },
    'require-tokens': {
      summary: 'Every sandbox wants its access token, also one that was created with `secure: false`.',
    },
    'tls-cert': { summary: 'Serve HTTPS with this certificate (PEM, with its chain).', value: 'FILE' },
    'tls-key': { summary: 'Its private key (PEM).', value: 'FILE' },
    'image-directory': {
      summary: 'Directory of this machine that images of every project may be made of (`dir:`, `tar:` …).',
      value: 'DIR',
      multiple: true,
    },
    'registry-allow': {
      summary: 'Registry, token server or network that images may come from though it is not on the Internet.',
      value: 'HOST[:PORT]|CIDR',
      multiple: true,
    },
    'registry-credentials': {
      summary: "Project whose pulls use this machine's docker credentials, as the installation's own do.",
      value: 'PROJECT',
      multiple: true,
    },
    limits: {
      summary: 'File of JSON with limits other than the defaults; see docs/reference/limits.md.',
      value: 'FILE',
    },
    'no-base': { summary: 'Do not make the template base when there is none of that name.' },
    forget: {
      summary: 'Delete snapshots and end machines that no record in icebox.db claims, instead of refusing to start.',
    },
    ...JSON_FLAG,
  },
  async run({ flags }) {
    if (!flags.detach) requireNodeFlags()
    const { detach, data, listen = '127.0.0.1:7070', json, 'tls-cert': cert, 'tls-key': key } = flags
    if ((cert === undefined) !== (key === undefined)) throw new UsageError('--tls-cert and --tls-key go together')
    const { defaultDataDirectory } = await import('@icebox/snapshot')
    const options = {
      dataDirectory: data === undefined ? defaultDataDirectory() : resolve(data),
      base: !flags['no-base'],
      forget: flags.forget,
      ...(flags.limits === undefined ? {} : { limits: await limitsOf(resolve(flags.limits)) }),
      json,
      sources: {
        directories: flags['image-directory'].map((path) => resolve(notEmpty('--image-directory', path))),
        registries: flags['registry-allow'].map((text) => hostOrNetwork('--registry-allow', text)),
        credentials:
          flags['registry-credentials'].length === 0
            ? []
            : await projectNames('--registry-credentials', flags['registry-credentials']),
      },
      reach: {
        listen: address('--listen', listen),
        domains: flags.domain.map((text) => domain('--domain', text)),
        allowedHosts: flags['allow-host'].map((text) => hostNameOf('--allow-host', text)),
        corsOrigins: flags['cors-origin'].map((text) => origin('--cors-origin', text)),
        requireTokens: flags['require-tokens'],
        ...(cert === undefined || key === undefined ? {} : { tls: { cert: resolve(cert), key: resolve(key) } }),
      },
    }
    try {
      if (detach) await (await import('../up/detached.ts')).startDetached(options)
      else await (await import('../up/foreground.ts')).serve(options)
      return 0
    } catch (thrown) {
      if (!isLasting(failureOf(thrown))) throw thrown
      report(thrown, json)
      return LASTING
    }
  },
})

async function projectNames(flag: string, texts: string[]) {
  const { projectName } = await import('../limits.ts')
  return texts.map((text) => projectName(flag, text))
}

async function limitsOf(file: string) {
  const { readLimits } = await import('../up/limits.ts')
  return { file, values: await readLimits(file) }
}
