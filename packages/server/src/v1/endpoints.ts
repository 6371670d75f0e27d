import { IceboxError, type Sandbox } from '@icebox/model'
import type { FastifyRequest } from 'fastify'
import { z } from 'zod'
import { authorityOf } from '../access.ts'
import type { App, Context } from '../context.ts'
import { DEADLINE, within } from '../deadline.ts'
import { TOKEN_HEADER } from '../gateway/credentials.ts'
import { EGRESS_PORT } from '../opensandbox/execd/egress.ts'
import { EXECD_PORT, EXECD_TOKEN_HEADER } from '../opensandbox/execd/facade.ts'
import { flag, integer } from '../parameters.ts'
import { FAILURES, Nothing, Ref } from '../schemas.ts'

const Endpoint = z
  .object({
    endpoint: z.string().describe('Authority and path, without a scheme: that of this API.'),
    headers: z.record(z.string(), z.string()).describe('To be sent with every request to it.'),
  })
  .meta({ id: 'Endpoint' })

/** Where the ports of sandboxes are reached, and what is told of that. */
export async function endpointRoutes(app: App, context: Context): Promise<void> {
  const tags = ['Ports']

  /** The authority by which the client reaches this server, and what leads to the port there. */
  function endpointOf(request: FastifyRequest, id: string, port: number, byPath: boolean): string {
    const authority = authorityOf(request.raw) ?? ''
    const [domain] = context.domains
    if (domain === undefined || byPath) return `${authority}/v1/sandboxes/${id}/proxy/${port}`
    return `${port}-${id}.${domain}${/:\d+$/.exec(authority)?.[0] ?? ''}`
  }

  function headersOf(sandbox: Sandbox, port: number): Record<string, string> {
    const { access, traffic } = context.control.traffic.tokens(sandbox)
    if (port === EXECD_PORT || port === EGRESS_PORT)
      return context.isSecure(sandbox) ? { [EXECD_TOKEN_HEADER]: access } : {}
    return sandbox.spec.publicTraffic ? {} : { [TOKEN_HEADER]: traffic }
  }

  app.get(
    '/v1/sandboxes/:id/endpoints/:port',
    {
      schema: {
        operationId: 'getEndpoint',
        summary: 'Where HTTP on a port of a sandbox is reached, by a name of its own where there is a domain',
        tags,
        params: Ref.extend({ port: integer(1, 65_535) }),
        querystring: z.object({
          use_server_proxy: flag.default(false).describe('By a path of this server, also where there is a domain.'),
          expires: z
            .string()
            .regex(/^(0|[1-9][0-9]{0,19})$/, 'must be seconds since 1970')
            .exactOptional()
            .describe('Endpoints that are signed until then are not given: it is refused.'),
        }),
        response: { 200: Endpoint, ...FAILURES },
      },
    },
    async (request, reply) => {
      const { params, query } = request
      if (query.expires !== undefined)
        throw new IceboxError('InvalidArgument', 'query.expires: signed endpoints are not supported', {
          remedy: 'Leave it out and send the headers of the endpoint with each request.',
          details: { field: 'query.expires' },
        })
      const sandbox = await within(DEADLINE.read, (signal) => request.project.sandboxes.get(params.id, signal), reply)
      return {
        endpoint: endpointOf(request, sandbox.metadata.name, params.port, query.use_server_proxy),
        headers: headersOf(sandbox, params.port),
      }
    },
  )

  app.post(
    '/v1/metrics/events',
    {
      config: { frequent: true },
      schema: {
        operationId: 'reportEvent',
        summary: 'Takes what clients tell of themselves, and keeps nothing of it',
        tags: ['Server'],
        response: { 204: Nothing, ...FAILURES },
      },
    },
    async (_request, reply) => reply.code(204).send(),
  )
}
