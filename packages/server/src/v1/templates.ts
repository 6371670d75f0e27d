import { type Accepted, type Project, wireTemplate } from '@icebox/control'
import { BuildTemplate, type Progress, ProgressLine, page, type Template, WireTemplate } from '@icebox/model'
import { z } from 'zod'
import type { App, Context } from '../context.ts'
import { DEADLINE, within } from '../deadline.ts'
import { NDJSON } from '../lines.ts'
import { PageQuery, pageOf, paginate } from '../page.ts'
import { PreferHeader, settle } from '../prefer.ts'
import { sendProgress, wantsProgress } from '../progress.ts'
import { FAILURES, Nothing } from '../schemas.ts'

const Name = z.object({ name: z.string().min(1) })

/** Templates: what sandboxes are made from. */
export async function templateRoutes(app: App, context: Context): Promise<void> {
  const tags = ['Templates']
  const accept = (project: Project, body: BuildTemplate, progress: Progress): Promise<Accepted<Template>> =>
    within(DEADLINE.accept, (signal) => project.templates.build(body, progress, signal))

  app.post(
    '/v1/templates',
    {
      schema: {
        operationId: 'buildTemplate',
        summary: 'Build a template; with `Accept: application/x-ndjson` the answer is its progress',
        tags,
        headers: PreferHeader,
        body: BuildTemplate,
        response: {
          200: {
            description: 'Lines of JSON; the last has `result`, a Template, or `error`',
            content: { [NDJSON]: { schema: ProgressLine } },
          },
          202: WireTemplate,
          ...FAILURES,
        },
      },
    },
    async (request, reply) => {
      const { body } = request
      request.resource = body.name
      if (wantsProgress(reply))
        return sendProgress(reply, context.streams, async (progress) =>
          wireTemplate(await (await accept(request.project, body, progress)).settled),
        )
      const accepted = await accept(request.project, body, () => undefined)
      const settled = await settle(reply, accepted, context.closing)
      return reply
        .code(202)
        .header('location', `/v1/templates/${body.name}`)
        .send(wireTemplate(settled ?? accepted.resource))
    },
  )

  app.get(
    '/v1/templates',
    {
      schema: {
        operationId: 'listTemplates',
        summary: 'List templates, newest first',
        tags,
        querystring: z.object(PageQuery),
        response: { 200: page(WireTemplate), ...FAILURES },
      },
    },
    async ({ query, project }, reply) =>
      paginate(
        await within(DEADLINE.read, (signal) => project.templates.list(pageOf(query), signal), reply),
        query,
        wireTemplate,
      ),
  )

  app.get(
    '/v1/templates/:name',
    {
      schema: {
        operationId: 'getTemplate',
        summary: 'Show a template',
        tags,
        params: Name,
        response: { 200: WireTemplate, ...FAILURES },
      },
    },
    async ({ params, project }, reply) =>
      wireTemplate(await within(DEADLINE.read, (signal) => project.templates.get(params.name, signal), reply)),
  )

  app.delete(
    '/v1/templates/:name',
    {
      schema: {
        operationId: 'deleteTemplate',
        summary: 'Delete a template; sandboxes made from it stay',
        tags,
        params: Name,
        headers: PreferHeader,
        response: { 204: Nothing, ...FAILURES },
      },
    },
    async ({ params, project }, reply) => {
      const accepted = await within(DEADLINE.accept, (signal) => project.templates.delete(params.name, signal))
      await settle(reply, accepted, context.closing)
      return reply.code(204).send()
    },
  )
}
