import { createHash } from 'node:crypto'
import { IceboxError } from '@icebox/model'
import { z } from 'zod'
import { type Keyring, Signature } from './keyring.ts'

/** `sha256:` and 64 hex digits. */
export const Digest = z.string().regex(/^sha256:[0-9a-f]{64}$/)

export const digestOf = (text: string): string => `sha256:${createHash('sha256').update(text).digest('hex')}`

function ordered(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(ordered)
  if (typeof value !== 'object' || value === null) return value
  const entries = Object.entries(value).filter(([, each]) => each !== undefined)
  return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, each]) => [key, ordered(each)]))
}

/** One text for one value: keys in order, two spaces, a newline at the end. */
const encode = (value: object): string => `${JSON.stringify(ordered(value), null, 2)}\n`

/** The checksum of a record: of its text without the fields `checksum` and `signature`. */
export const checksumOf = (content: object): string => digestOf(encode(content))

/** The text of a file that carries its own checksum, and the signature of whoever wrote it. */
export function seal(content: object, keyring: Keyring): string {
  const checksum = checksumOf(content)
  return encode({ ...content, checksum, signature: keyring.sign(checksum) })
}

const Head = z.looseObject({ version: z.int().min(1), checksum: Digest, signature: Signature.optional() })

/**
 * Reads what `seal` wrote. `schemas` holds one for each version this program reads, which may bring it up to the newest.
 * Every flipped bit is found, since the text must be exactly what `seal` would write.
 * Throws SnapshotCorrupt, SnapshotUntrusted, or SnapshotIncompatible for a version newer than the program.
 */
export function unseal<T>(
  text: string,
  schemas: Record<number, z.ZodType<T>>,
  what: string,
  keyring: Keyring,
): T & { checksum: string } {
  const corrupt = (problem: string, cause?: unknown) =>
    new IceboxError('SnapshotCorrupt', `${what} is damaged: ${problem}`, { cause })
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch (thrown) {
    throw corrupt('it is not JSON', thrown)
  }
  const head = Head.safeParse(parsed)
  if (!head.success) throw corrupt('it has no version and checksum', head.error)
  const { checksum, signature, ...content } = head.data
  if (encode(head.data) !== text || checksumOf(content) !== checksum) throw corrupt('its checksum does not fit')
  keyring.check(checksum, signature, what)
  const schema = schemas[content.version]
  if (!schema) {
    const known = Object.keys(schemas).join(', ')
    throw new IceboxError(
      'SnapshotIncompatible',
      `${what} has format version ${content.version}, and this program reads version ${known}: a newer Icebox has written it`,
    )
  }
  const result = schema.safeParse(content)
  if (!result.success) throw corrupt('it does not fit its schema', result.error)
  return { ...result.data, checksum }
}
