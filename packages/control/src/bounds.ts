import { IceboxError, type Kind } from '@icebox/model'
import type { Context } from './context.ts'

/** Bytes, as JSON, of each thing that a caller gives a resource to keep: environment, metadata, commands, settings. */
const MAX_BYTES = 64 * 1024

/** Throws `TooLarge`, which names the field. What is merged is looked at as it would be kept. */
export function requireBounded(fields: Record<string, unknown>): void {
  for (const [field, value] of Object.entries(fields)) {
    const bytes = value === undefined ? 0 : Buffer.byteLength(JSON.stringify(value))
    if (bytes <= MAX_BYTES) continue
    throw new IceboxError('TooLarge', `${field}: ${bytes} bytes as JSON, and may have ${MAX_BYTES}`, {
      remedy: 'Keep less with it, and put the rest into a file of the sandbox.',
      details: { field, limitBytes: MAX_BYTES },
    })
  }
}

/** Throws `TooManyRequests` when the project may have no `more` records of the kind, in whatever state they are. */
export function requireRecords(
  { admission, records }: Pick<Context, 'admission' | 'records'>,
  kind: Kind,
  more = 1,
): void {
  const limit = admission.limits.records
  const { size } = records.of(kind)
  if (size + more <= limit) return
  throw new IceboxError(
    'TooManyRequests',
    `project ${records.namespace} has ${size} records of kind ${kind}, and may have ${limit}`,
    {
      remedy: 'Delete what is not needed any more, or have the limit raised.',
      details: { limit: 'records' },
    },
  )
}
