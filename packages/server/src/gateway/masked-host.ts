import type { Sandbox } from '@icebox/model'

/** The Host header the services of a sandbox see, undefined: what the client sent. `${PORT}` in the mask stands for the port. */
export function maskedHost({ spec: { network } }: Sandbox, port: number): string | undefined {
  const mask = network?.maskRequestHost
  return typeof mask === 'string' && mask !== '' ? mask.replaceAll('$' + '{PORT}', String(port)) : undefined
}
