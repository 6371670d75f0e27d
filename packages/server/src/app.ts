import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import fastify, { type FastifyServerOptions, LogController } from 'fastify'
import { serializerCompiler, validatorCompiler, type ZodTypeProvider } from 'fastify-type-provider-zod'
import type { App } from './context.ts'
import { sendFailure, unknownRoute } from './failure.ts'
import { linger } from './linger.ts'

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

/** Fastify as every route here expects it: zod schemas, our errors, empty bodies allowed, nothing logged by itself. */
export function createApp(options: Pick<FastifyServerOptions, 'logger'>): App {
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
  app.decorateRequest('failure', undefined)
  app.addHook('onResponse', async ({ raw }) => linger(raw))
  app.setErrorHandler(sendFailure)
  app.setNotFoundHandler(unknownRoute)

  const parse = app.getDefaultJsonParser('error', 'error')
  app.removeAllContentTypeParsers()
  // Also `application/merge-patch+json`. Clients send the header without a body, too.
  app.addContentTypeParser(/^application\/([\w.-]+\+)?json/i, { parseAs: 'string' }, (request, body, done) => {
    if (body.length === 0) done(null, undefined)
    else void parse(request, String(body), done)
  })
  return app
}
