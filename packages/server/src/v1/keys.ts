import { wireApiKey } from '@icebox/control'
import { CreateApiKey, NewApiKey, page, WireApiKey } from '@icebox/model'
import { z } from 'zod'
import type { App, Context } from '../context.ts'
import { PageQuery, pageOf, paginate } from '../page.ts'
import { FAILURES, Nothing, Ref } from '../schemas.ts'

/** The keys of projects. */
export async function keyRoutes(app: App, context: Context): Promise<void> {
  const tags = ['Keys']

  app.post(
    '/v1/keys',
    {
      config: { installation: true },
      schema: {
        operationId: 'createKey',
        summary: 'Make an API key of a project; the answer alone has it. Needs the key of the installation',
        tags,
        body: CreateApiKey,
        response: { 201: NewApiKey, ...FAILURES },
      },
    },
    async (request, reply) => {
      const { key, record } = await context.control.keys.create(request.body)
      const { name } = record.metadata
      request.resource = name
      return reply
        .code(201)
        .header('location', `/v1/keys/${name}`)
        .send({ ...wireApiKey(record), key })
    },
  )

  app.get(
    '/v1/keys',
    {
      config: { installation: true },
      schema: {
        operationId: 'listKeys',
        summary: 'List the API keys of all projects, newest first. Needs the key of the installation',
        tags,
        querystring: z.object(PageQuery),
        response: { 200: page(WireApiKey), ...FAILURES },
      },
    },
    async ({ query }) => paginate(await context.control.keys.list(pageOf(query)), query, wireApiKey),
  )

  app.delete(
    '/v1/keys/:id',
    {
      config: { installation: true },
      schema: {
        operationId: 'revokeKey',
        summary:
          'Take an API key back: it opens nothing any more, and what it has begun ends. Needs the key of the installation',
        tags,
        params: Ref,
        response: { 204: Nothing, ...FAILURES },
      },
    },
    async ({ params }, reply) => {
      await context.control.keys.revoke(params.id)
      return reply.code(204).send()
    },
  )
}
