import { resolve } from 'node:path'
import { defaultDataDirectory, PublicKey } from '@icebox/snapshot'
import { JSON_FLAG, UsageError } from './command.ts'

/** What the commands have in common that tell whose snapshots a data directory trusts. They need no server. */

export const KEY = { name: 'key', summary: 'Public key: ed25519: and 64 hex digits.' } as const
export const TRUST_FLAGS = {
  data: { summary: 'Data directory of the server. Default: ICEBOX_DATA, else /var/lib/icebox.', value: 'DIR' },
  ...JSON_FLAG,
} as const

export const dataDirectoryOf = ({ data }: { data: string | undefined }): string =>
  data === undefined ? defaultDataDirectory() : resolve(data)

export const isPublicKey = (text: string): text is PublicKey => PublicKey.safeParse(text).success

/** Throws UsageError. */
export function publicKey(text: string): PublicKey {
  if (isPublicKey(text)) return text
  throw new UsageError(`KEY must be ed25519: and 64 hex digits, not ${JSON.stringify(text)}`)
}
