import { wireUsage } from '@icebox/control'
import { CollectResult, page, WireUsage } from '@icebox/model'
import { z } from 'zod'
import type { App, Context } from '../context.ts'
import { DEADLINE, within } from '../deadline.ts'
import { PageQuery, pageOf, paginate } from '../page.ts'
import { FAILURES, optional } from '../schemas.ts'

const Time = z.iso.datetime({ offset: true })

/** What a project has used, and what it can do without. */
export async function usageRoutes(app: App, context: Context): Promise<void> {
  const tags = ['Usage']

  app.get(
    '/v1/usage',
    {
      schema: {
        operationId: 'getUsage',
        summary: 'How long sandboxes have run, those that were deleted in the last 90 days included, newest first',
        tags,
        querystring: z.object({
          from: Time.exactOptional().describe('Only those that existed at this time or later.'),
          to: Time.exactOptional().describe('Only those that existed before this time.'),
          ...PageQuery,
        }),
        response: { 200: page(WireUsage), ...FAILURES },
      },
    },
    async ({ query, project }) => {
      const { from, to, ...paging } = query
      const period = { ...(from === undefined ? {} : { from }), ...(to === undefined ? {} : { to }) }
      return paginate(project.usage(period, pageOf(paging)), paging, wireUsage)
    },
  )

  app.post(
    '/v1/collect',
    {
      schema: {
        operationId: 'collect',
        summary:
          'Remove what has expired or is not needed any more, or only say what would go; with the key of the installation of all projects',
        tags,
        body: optional(z.object({ dryRun: z.boolean().default(false) })),
        response: { 200: CollectResult, ...FAILURES },
      },
    },
    async ({ body: { dryRun }, installation, project }, reply) => {
      const collector = installation ? context.control : project
      const items = await within(DEADLINE.work, (signal) => collector.collect({ dryRun }, signal), reply)
      return { dryRun, items, bytes: items.reduce((sum, { bytes }) => sum + bytes, 0) }
    },
  )
}
