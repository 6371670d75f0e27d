import { wireError } from '@icebox/control'
import { IceboxError } from '@icebox/model'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { hasZodFastifySchemaValidationErrors } from 'fastify-type-provider-zod'
import { e2bError, isE2bPath } from './e2b/error.ts'

const WHERE: Record<string, string> = { body: 'body', querystring: 'query', params: 'path', headers: 'headers' }

const codeOf = (thrown: unknown): string | undefined =>
  thrown instanceof Error && 'code' in thrown && typeof thrown.code === 'string' ? thrown.code : undefined

const statusOf = (thrown: unknown): number | undefined =>
  thrown instanceof Error && 'statusCode' in thrown && typeof thrown.statusCode === 'number'
    ? thrown.statusCode
    : undefined

/** The one place where what routes, schemas and fastify throw becomes an error of the registry. */
export function toIceboxError(thrown: unknown): IceboxError {
  if (thrown instanceof IceboxError) return thrown
  if (hasZodFastifySchemaValidationErrors(thrown)) {
    const where = WHERE[thrown.validationContext ?? ''] ?? 'request'
    const problems = thrown.validation.map(({ instancePath, message }) => {
      const field = instancePath.split('/').filter(Boolean).join('.')
      return { field: field === '' ? where : `${where}.${field}`, message }
    })
    return new IceboxError('InvalidArgument', problems.map(({ field, message }) => `${field}: ${message}`).join('; '), {
      details: { field: problems[0]?.field ?? where },
    })
  }
  switch (codeOf(thrown)) {
    case 'FST_ERR_CTP_BODY_TOO_LARGE':
      return new IceboxError('TooLarge', 'the body is larger than 1 MiB')
    case 'FST_ERR_CTP_INVALID_JSON_BODY':
      return new IceboxError('InvalidArgument', 'the body is not valid JSON', { details: { field: 'body' } })
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
      return new IceboxError('InvalidArgument', 'the body has a Content-Type that is not application/json', {
        remedy: 'Send JSON with the header `Content-Type: application/json`.',
      })
  }
  const status = statusOf(thrown)
  if (status !== undefined && status >= 400 && status < 500 && thrown instanceof Error)
    return new IceboxError('InvalidArgument', thrown.message, { cause: thrown })
  return IceboxError.from(thrown)
}

export const unknownRoute = (request: FastifyRequest): never => {
  throw new IceboxError('NotFound', `there is no ${request.method} ${request.url.split('?', 1)[0]}`, {
    remedy: 'See GET /v1/openapi.json for what there is.',
  })
}

/** Answers with the error; silent when the client is no longer there. */
export function sendFailure(thrown: unknown, request: FastifyRequest, reply: FastifyReply): void {
  if (reply.raw.destroyed) {
    reply.hijack()
    return
  }
  const error = toIceboxError(thrown)
  request.failure = error
  // Set here too for what fails before any hook has run.
  reply.header('x-request-id', request.id)
  // Fastify would close the connection at once, and the answer with it.
  if (error.code === 'TooLarge') reply.removeHeader('connection')
  if (error.code === 'Unauthorized') reply.header('www-authenticate', 'Bearer')
  const { retryAfterSeconds } = error.details
  if (typeof retryAfterSeconds === 'number') reply.header('retry-after', String(retryAfterSeconds))
  const { status, body } = answerTo(request.url, error)
  // A string: no response schema applies to it.
  reply.code(status).type('application/json; charset=utf-8').send(JSON.stringify(body))
}

/** In the shape of the API that the path is of, also where there is no route. */
function answerTo(url: string, error: IceboxError): { status: number; body: object } {
  if (!isE2bPath(url)) return { status: error.status, body: wireError(error) }
  const body = e2bError(error)
  return { status: body.code, body }
}
