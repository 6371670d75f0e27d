import type { Sandbox } from '@icebox/model'

/** What a mask may be: it stands in a header as it is. */
export const HOST_MASK = /^[\x21-\x7e]{1,255}$/

/** The Host header the services of a sandbox see, undefined: what the client sent. `${PORT}` in the mask stands for the port. */
export function maskedHost({ spec: { network } }: Sandbox, port: number): string | undefined {
  const mask = network?.maskRequestHost
  return typeof mask === 'string' && HOST_MASK.test(mask) ? mask.replaceAll('$' + '{PORT}', String(port)) : undefined
}
