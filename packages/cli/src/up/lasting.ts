import type { Failure } from '../failure.ts'

/** Status of `up` when starting it again would be refused just the same. */
export const LASTING = 3

/**
 * Whether what kept a server from starting stays until somebody does something: a data directory that is not ours, of a newer Icebox,
 * or in use by another server. A port that is taken, or a full disk, may be free a moment later.
 */
export function isLasting({ code, details }: Failure): boolean {
  if (code === 'Conflict') return details?.pid !== undefined
  return ['InvalidArgument', 'NotImplemented', 'Forbidden'].includes(code)
}
