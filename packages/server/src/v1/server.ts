import { z } from 'zod'
import { onceOver } from '../client.ts'
import { type App, type Context, ServerInfo, SHUTDOWN_MODES } from '../context.ts'
import { FAILURES, optional } from '../schemas.ts'

const OWN = "Of this machine: told to the installation's own key alone."

/** The server itself. */
export async function serverRoutes(app: App, context: Context): Promise<void> {
  app.get(
    '/health',
    {
      config: { public: true, frequent: true },
      schema: {
        operationId: 'getHealth',
        summary: 'Whether the server answers. Needs no key.',
        tags: ['Server'],
        security: [],
        response: { 200: z.object({ status: z.literal('ok'), version: z.string() }), ...FAILURES },
      },
    },
    async () => ({ status: 'ok' as const, version: context.info.version }),
  )

  app.get(
    '/v1/info',
    {
      schema: {
        operationId: 'getInfo',
        summary: 'Which server this is',
        tags: ['Server'],
        response: {
          200: ServerInfo.extend({
            dataDirectory: ServerInfo.shape.dataDirectory.exactOptional().describe(OWN),
            pid: ServerInfo.shape.pid.exactOptional().describe(OWN),
            project: z.string().describe('The project whose key it was.'),
            installation: z.boolean().describe("Whether it was the installation's own key."),
          }),
          ...FAILURES,
        },
      },
    },
    async ({ project, installation }) => {
      const { dataDirectory, pid, ...known } = context.info
      return { ...known, ...(installation ? { dataDirectory, pid } : {}), project: project.name, installation }
    },
  )

  let document: Promise<Record<string, unknown> & { openapi: string }> | undefined
  app.get(
    '/v1/openapi.json',
    {
      schema: {
        operationId: 'getOpenApi',
        summary: 'This API as an OpenAPI 3.1 document',
        tags: ['Server'],
        response: { 200: z.looseObject({ openapi: z.string() }), ...FAILURES },
      },
    },
    async () => {
      // Loaded when asked for: it is not needed to serve.
      const { openApiDocument } = await import('../openapi.ts')
      // Making it takes a large part of a second, and it never changes.
      document ??= openApiDocument()
      return document
    },
  )

  app.post(
    '/v1/shutdown',
    {
      config: { installation: true },
      schema: {
        operationId: 'shutdown',
        summary: 'Pauses (or keeps, or kills) all sandboxes and ends the server. Needs the key of the installation',
        tags: ['Server'],
        body: optional(z.object({ mode: z.enum(SHUTDOWN_MODES).default('pause') })),
        response: { 202: z.object({ mode: z.enum(SHUTDOWN_MODES) }), ...FAILURES },
      },
    },
    async (request, reply) => {
      const { mode } = request.body
      onceOver(reply, () => context.onShutdown(mode))
      return reply.code(202).send({ mode })
    },
  )
}
