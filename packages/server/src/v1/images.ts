import { wireImage } from '@icebox/control'
import { ProgressLine, PullImage, page, WireImage } from '@icebox/model'
import { z } from 'zod'
import type { App, Context } from '../context.ts'
import { DEADLINE, within } from '../deadline.ts'
import { NDJSON } from '../lines.ts'
import { PageQuery, pageOf, paginate } from '../page.ts'
import { sendProgress, wantsProgress } from '../progress.ts'
import { FAILURES, Nothing } from '../schemas.ts'

const ImageRef = z.object({
  ref: z.string().min(1).describe('An id, a unique prefix of one, a digest, or a reference (URL-encoded).'),
})

/** Images: root file systems pinned by digest. */
export async function imageRoutes(app: App, context: Context): Promise<void> {
  const tags = ['Images']

  app.post(
    '/v1/images',
    {
      schema: {
        operationId: 'pullImage',
        summary: 'Make an image present; with `Accept: application/x-ndjson` the answer is its progress',
        description: 'The pull ends when its client goes away, unless another one waits for the same image.',
        tags,
        body: PullImage,
        response: {
          200: {
            description: 'Lines of JSON; the last has `result`, an Image, or `error`',
            content: { [NDJSON]: { schema: ProgressLine } },
          },
          201: WireImage,
          ...FAILURES,
        },
      },
    },
    async (request, reply) => {
      const { reference } = request.body
      if (wantsProgress(reply))
        return sendProgress(reply, context.streams, async (progress, signal) =>
          wireImage(await request.project.images.pull(reference, progress, signal)),
        )
      const image = await within(
        DEADLINE.work,
        (signal) => request.project.images.pull(reference, () => undefined, signal),
        reply,
      )
      request.resource = image.metadata.name
      return reply.code(201).header('location', `/v1/images/${image.metadata.name}`).send(wireImage(image))
    },
  )

  app.get(
    '/v1/images',
    {
      schema: {
        operationId: 'listImages',
        summary: 'List images, newest first',
        tags,
        querystring: z.object(PageQuery),
        response: { 200: page(WireImage), ...FAILURES },
      },
    },
    async ({ query, project }, reply) =>
      paginate(
        await within(DEADLINE.read, (signal) => project.images.list(pageOf(query), signal), reply),
        query,
        wireImage,
      ),
  )

  app.get(
    '/v1/images/:ref',
    {
      schema: {
        operationId: 'getImage',
        summary: 'Show an image',
        tags,
        params: ImageRef,
        response: { 200: WireImage, ...FAILURES },
      },
    },
    async ({ params, project }, reply) =>
      wireImage(await within(DEADLINE.read, (signal) => project.images.get(params.ref, signal), reply)),
  )

  app.delete(
    '/v1/images/:ref',
    {
      schema: {
        operationId: 'deleteImage',
        summary: 'Delete an image that nothing needs',
        tags,
        params: ImageRef,
        response: { 204: Nothing, ...FAILURES },
      },
    },
    async ({ params, project }, reply) => {
      await within(DEADLINE.accept, (signal) => project.images.delete(params.ref, signal))
      return reply.code(204).send()
    },
  )
}
