import type { ErrorCode, IceboxError } from '@icebox/model'
import { z } from 'zod'

/** How E2B tells what went wrong. `code` repeats the HTTP status: clients decide by it. */
export const E2bError = z.object({
  code: z.int(),
  message: z.string(),
  /** For programs. Not a closed set. */
  error_code: z.string().optional(),
})
export type E2bError = z.infer<typeof E2bError>

/** The first segment of every path that is E2B's, after a version. What Icebox lacks of them answers 404 in E2B's shape. */
export const AREAS = [
  'sandboxes',
  'snapshots',
  'templates',
  'default-templates',
  'teams',
  'volumes',
  'volumecontent',
  'secrets',
  'api-keys',
  'access-tokens',
  'nodes',
  'admin',
  'events',
  'webhooks',
] as const

const FIRST: ReadonlySet<string> = new Set(['v2', 'v3', ...AREAS])

/** Whether a request is E2B's by its path, whether or not there is such a route. */
export function isE2bPath(url: string): boolean {
  const [path = ''] = url.split('?', 1)
  return path.startsWith('/') && FIRST.has(path.split('/', 2)[1] ?? '')
}

/**
 * Where E2B's clients expect another status than Icebox's own or know a name for the case. Statuses that they repeat a
 * request on (503) are for what may go well the next time.
 */
const SPECIAL: Partial<Record<ErrorCode, { status?: number; name: string }>> = {
  NoMemory: { status: 503, name: 'sandbox_capacity_unavailable' },
  DeadlineExceeded: { status: 503, name: 'sandbox_placement_timeout' },
  GuestFailed: { name: 'sandbox_create_failed' },
  NotImplemented: { status: 400, name: 'not_implemented' },
  Internal: { name: 'internal_server_error' },
}

const snakeCase = (code: ErrorCode): string => code.replace(/(?<!^)[A-Z]/g, '_$&').toLowerCase()

export function e2bError(error: IceboxError): E2bError {
  const special = SPECIAL[error.code]
  return {
    code: special?.status ?? error.status,
    message: error.message,
    error_code: special?.name ?? snakeCase(error.code),
  }
}
