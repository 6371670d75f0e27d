import { METADATA_PREFIX } from './entry.ts'
import { RestError } from './errors.ts'

const HEADER = 'x-metadata-'
/** Bytes. */
const MAX_KEY = 246
const MAX_TOTAL = 4096
const PRINTABLE = /^[\x20-\x7e]*$/

/**
 * The extended attributes that a file gets of the headers `X-Metadata-<key>: <value>`, names and values in turn. Of a header that
 * comes twice, the first counts. Throws a `RestError` with 400 for what a file cannot have.
 */
export function metadataXattrs(rawHeaders: readonly string[]): Record<string, string> {
  const xattrs = new Map<string, string>()
  let total = 0
  for (let index = 0; index + 1 < rawHeaders.length; index += 2) {
    const header = (rawHeaders[index] ?? '').toLowerCase()
    const value = rawHeaders[index + 1] ?? ''
    const key = header.slice(HEADER.length)
    const name = METADATA_PREFIX + key
    if (!header.startsWith(HEADER) || key === '' || xattrs.has(name)) continue
    if (!PRINTABLE.test(key) || !PRINTABLE.test(value))
      throw new RestError(400, `metadata ${JSON.stringify(key)}: keys and values must be printable US-ASCII`)
    if (key.length > MAX_KEY)
      throw new RestError(400, `metadata key ${key.slice(0, 32)}… is longer than ${MAX_KEY} bytes`)
    total += name.length + value.length
    if (total > MAX_TOTAL) throw new RestError(400, `the metadata is longer than ${MAX_TOTAL} bytes`)
    xattrs.set(name, value)
  }
  return Object.fromEntries(xattrs)
}
