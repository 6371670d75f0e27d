import type { Sandbox } from '@icebox/model'
import { z } from 'zod'

const Exposure = z.object({
  publicTraffic: z.boolean().default(true),
  network: z.object({ maskRequestHost: z.string().optional() }).optional(),
})

/** How the ports of a sandbox answer. */
export interface Exposure {
  /** Without a token. */
  readonly public: boolean
  /** The Host header its services see; undefined: the one the client sent. */
  readonly host: string | undefined
}

/** `${PORT}` in the mask is the port. */
export function exposureOf({ spec }: Sandbox, port: number): Exposure {
  const { publicTraffic, network } = Exposure.parse(spec)
  return { public: publicTraffic, host: network?.maskRequestHost?.replaceAll('$' + '{PORT}', String(port)) }
}
