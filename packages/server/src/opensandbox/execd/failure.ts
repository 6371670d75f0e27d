import { IceboxError, isError } from '@icebox/model'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { toIceboxError } from '../../failure.ts'

/** Codes of execd's own that say more than ours. */
const CODES = {
  invalid: 'INVALID_REQUEST_BODY',
  query: 'MISSING_QUERY',
  file: 'FILE_NOT_FOUND',
  context: 'CONTEXT_NOT_FOUND',
  metadata: 'INVALID_FILE_METADATA',
  content: 'INVALID_FILE_CONTENT',
  range: 'INVALID_RANGE',
  absent: 'SANDBOX_NOT_FOUND',
  asleep: 'SANDBOX_NOT_RUNNING',
} as const
export type ExecdCode = keyof typeof CODES

/** An error that execd has a code of its own for, or that is answered with another status than ours. */
export class ExecdError extends IceboxError {
  readonly wire: { code: string; status?: number }

  constructor(
    code: ExecdCode,
    error: 'InvalidArgument' | 'NotFound' | 'InvalidState',
    message: string,
    status?: number,
  ) {
    super(error, message)
    this.wire = { code: CODES[code], ...(status === undefined ? {} : { status }) }
  }
}

/**
 * What looks a sandbox up or reaches for it: of one that is not there or does not run there is no execd to answer, and that is
 * 502. 404 and 409 would be of what was asked of execd.
 */
export async function reaching<T>(work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (thrown) {
    if (isError(thrown, 'NotFound')) throw new ExecdError('absent', 'NotFound', thrown.message, 502)
    if (isError(thrown, 'InvalidState')) throw new ExecdError('asleep', 'InvalidState', thrown.message, 502)
    throw thrown
  }
}

/** `NotFound` → `NOT_FOUND` */
const inTheirSpelling = (code: string): string => code.replace(/(?<=[a-z])(?=[A-Z])/g, '_').toUpperCase()

function codeOf(error: IceboxError): string {
  if (error instanceof ExecdError) return error.wire.code
  switch (error.code) {
    case 'InvalidArgument':
      return String(error.details.field ?? '').startsWith('query') ? CODES.query : CODES.invalid
    case 'Internal':
      return 'RUNTIME_ERROR'
    case 'NotImplemented':
      return 'NOT_SUPPORTED'
    default:
      return inTheirSpelling(error.code)
  }
}

/** Answers with an error as execd words it: a code and a message. Silent when the client is no longer there. */
export function sendExecdFailure(thrown: unknown, request: FastifyRequest, reply: FastifyReply): void {
  if (reply.raw.destroyed) {
    reply.hijack()
    return
  }
  const error = toIceboxError(thrown)
  request.failure = error
  if (error.code === 'TooLarge') reply.removeHeader('connection')
  const status = error instanceof ExecdError ? error.wire.status : undefined
  reply
    .code(status ?? error.status)
    .type('application/json; charset=utf-8')
    .send(JSON.stringify({ code: codeOf(error), message: error.message }))
}
