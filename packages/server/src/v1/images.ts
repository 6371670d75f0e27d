import { wireImage } from '@icebox/control'
import { ImportImage, ProgressLine, PullImage, page, WireImage } from '@icebox/model'
import { z } from 'zod'
import type { App, Context } from '../context.ts'
import { DEADLINE, within } from '../deadline.ts'
import { NDJSON } from '../lines.ts'
import { PageQuery, pageOf, paginate } from '../page.ts'
import { sendProgress, wantsProgress } from '../progress.ts'
import { rawBodies } from '../raw.ts'
import { receive } from '../receive.ts'
import { Bytes, FAILURES, Nothing } from '../schemas.ts'
import { withTemporaryFile } from '../temporary.ts'
import { Turnstile } from '../turnstile.ts'

const TAR = 'application/x-tar'
/** Bytes of one upload. */
const UPLOAD_BYTES = 17_179_869_184
/** Uploads that are received, or made an image of. */
const UPLOADS = { each: 2, inAll: 8 }

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

  const uploads = new Turnstile(UPLOADS, { each: 'image uploads of this project', inAll: 'image uploads' })
  app.register(async (raw: App) => {
    rawBodies(raw)
    raw.post(
      '/v1/images/import',
      {
        schema: {
          operationId: 'importImage',
          summary: 'Make an image of a file: a root file system, an OCI image layout or a docker archive',
          description: 'Compressed or not. The answer comes once the image is made.',
          tags,
          consumes: [TAR],
          querystring: ImportImage,
          body: Bytes,
          response: { 201: WireImage, ...FAILURES },
        },
      },
      async (request, reply) => {
        const leave = uploads.enter(request.project.name, request.project.name)
        try {
          return await withTemporaryFile(context.temporaryDirectory, 'image', async (file) => {
            const { kind, name, label = kind } = request.query
            const image = await within(
              DEADLINE.work,
              async (signal) => {
                const size = { maxBytes: UPLOAD_BYTES, what: 'the image' }
                await receive(request, file, size, context.withinSpace, signal)
                const upload = { kind, file, reference: `upload:${label}`, ...(name === undefined ? {} : { name }) }
                return request.project.images.import(upload, () => undefined, signal)
              },
              reply,
            )
            request.resource = image.metadata.name
            return reply.code(201).header('location', `/v1/images/${image.metadata.name}`).send(wireImage(image))
          })
        } finally {
          leave()
        }
      },
    )
  })

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
