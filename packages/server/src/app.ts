import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { collect, IceboxError, isError, type Reservation } from '@icebox/model'
import fastify, { type FastifyReply, type FastifyRequest, type FastifyServerOptions, LogController } from 'fastify'
import { serializerCompiler, validatorCompiler, type ZodTypeProvider } from 'fastify-type-provider-zod'
import type { App } from './context.ts'
import { sendFailure, unknownRoute } from './failure.ts'
import { linger } from './linger.ts'
import { readBody } from './raw.ts'

/** Bytes of a body that is not streamed. */
const BODY_LIMIT = 1_048_576
/** Longer than any image reference; characters. */
const PARAMETER_LIMIT = 4096

const REQUEST_ID = /^[\x21-\x7e]{1,128}$/

/** The client's own, when it can stand in a header and a log line; else a new one. */
export function requestId(request: IncomingMessage): string {
  const given = request.headers['x-request-id']
  return typeof given === 'string' && REQUEST_ID.test(given) ? given : randomUUID()
}

export interface AppOptions extends Pick<FastifyServerOptions, 'logger'> {
  /** What a body counts in while it is held. Default: nothing. */
  hold?: (request: FastifyRequest, reply: FastifyReply) => Reservation | undefined
}

/** Fastify as every route here expects it: zod schemas, our errors, empty bodies allowed, nothing logged by itself. */
export function createApp({ hold = () => undefined, ...options }: AppOptions): App {
  const app = fastify({
    ...options,
    logController: new LogController({ disableRequestLogging: true }),
    // Each line names its request itself: a logger per request would cost every request.
    childLoggerFactory: (logger) => logger,
    bodyLimit: BODY_LIMIT,
    routerOptions: { maxParamLength: PARAMETER_LIMIT },
    exposeHeadRoutes: false,
    // Closing is answered with an error of ours, by the server.
    return503OnClosing: false,
    genReqId: requestId,
    frameworkErrors: (error, request, reply) => sendFailure(error, request, reply),
  }).withTypeProvider<ZodTypeProvider>()
  app.setValidatorCompiler(validatorCompiler)
  app.setSerializerCompiler(serializerCompiler)
  app.decorateRequest('resource', undefined)
  app.decorateRequest('installation', false)
  app.decorateRequest('revoked', undefined)
  app.decorateRequest('failure', undefined)
  app.addHook('onResponse', async ({ raw }) => linger(raw))
  app.setErrorHandler(sendFailure)
  app.setNotFoundHandler(unknownRoute)

  const parse = app.getDefaultJsonParser('error', 'error')
  app.removeAllContentTypeParsers()
  // Also `application/merge-patch+json`. Clients send the header without a body, too.
  app.addContentTypeParser(/^application\/([\w.-]+\+)?json/i, (request, _payload, done) => {
    if (Number(request.headers['content-length'] ?? 0) > BODY_LIMIT) {
      done(tooLarge())
      return
    }
    collect(readBody(request), BODY_LIMIT, held.get(request)).then(
      (body) => {
        if (body.length === 0) done(null, undefined)
        else void parse(request, Buffer.from(body.buffer).toString(), done)
      },
      (thrown: unknown) => done(isError(thrown, 'TooLarge') ? tooLarge() : IceboxError.from(thrown)),
    )
  })
  const held = new WeakMap<FastifyRequest, Reservation>()
  // Once it is known whose request it is.
  app.addHook('preParsing', async (request, reply) => {
    const reservation = request.headers['content-type'] === undefined ? undefined : hold(request, reply)
    if (reservation !== undefined) held.set(request, reservation)
  })
  return app
}

const tooLarge = () => new IceboxError('TooLarge', 'the body is larger than 1 MiB')
