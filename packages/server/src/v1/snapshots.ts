import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { type Accepted, WIRE_STATE_OF_ARTIFACT, wireSnapshot } from '@icebox/control'
import {
  ARTIFACT_STATES,
  CreateSnapshot,
  DisplayName,
  page,
  type Snapshot,
  WIRE_ARTIFACT_STATES,
  WireSnapshot,
} from '@icebox/model'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import { sendBytes } from '../bytes.ts'
import { onceOver } from '../client.ts'
import type { App, Context } from '../context.ts'
import { DEADLINE, within } from '../deadline.ts'
import { PageQuery, pageOf, paginate } from '../page.ts'
import { flag, repeated } from '../parameters.ts'
import { PreferHeader, settle } from '../prefer.ts'
import { rawBodies } from '../raw.ts'
import { receive } from '../receive.ts'
import { Bytes, FAILURES, Nothing, optional, Ref, streamed } from '../schemas.ts'
import { withTemporaryFile } from '../temporary.ts'

const TAR = 'application/x-tar'

/** Counts it among those that read or write whole snapshots, until it is over. */
async function countTransfer({ project }: FastifyRequest, reply: FastifyReply): Promise<void> {
  onceOver(reply, project.snapshots.enterTransfer())
}

/** Snapshots, of one sandbox and of all. */
export async function snapshotRoutes(app: App, context: Context): Promise<void> {
  const tags = ['Snapshots']

  app.post(
    '/v1/sandboxes/:id/snapshots',
    {
      schema: {
        operationId: 'createSnapshot',
        summary: 'Take a snapshot of a running sandbox, which runs on unless `stop`',
        tags,
        params: Ref,
        headers: PreferHeader,
        body: optional(CreateSnapshot),
        response: { 202: WireSnapshot, ...FAILURES },
      },
    },
    async (request, reply) => {
      const { params, body } = request
      const accepted: Accepted<Snapshot> = await within(DEADLINE.accept, (signal) =>
        request.project.snapshots.create(params.id, body, signal),
      )
      const { name } = accepted.resource.metadata
      request.resource = name
      const settled = await settle(reply, accepted, context.closing)
      return reply
        .code(202)
        .header('location', `/v1/snapshots/${name}`)
        .send(wireSnapshot(settled ?? accepted.resource))
    },
  )

  app.get(
    '/v1/snapshots',
    {
      schema: {
        operationId: 'listSnapshots',
        summary: 'List snapshots, newest first',
        tags,
        querystring: z.object({
          sandboxId: z.string().min(1).exactOptional().describe('Of this sandbox, which may be gone.'),
          name: z.string().min(1).exactOptional().describe('Of exactly this name.'),
          state: repeated(z.enum(WIRE_ARTIFACT_STATES)).exactOptional().describe('Any of these states.'),
          hidden: flag.default(false).describe('Also those that belong to a template, a fork or a paused sandbox.'),
          ...PageQuery,
        }),
        response: { 200: page(WireSnapshot), ...FAILURES },
      },
    },
    async (request, reply) => {
      const { sandboxId, name, state, hidden, ...paging } = request.query
      const filter = {
        hidden,
        ...(sandboxId === undefined ? {} : { sandbox: sandboxId }),
        ...(name === undefined ? {} : { name }),
        ...(state === undefined
          ? {}
          : { states: ARTIFACT_STATES.filter((own) => state.includes(WIRE_STATE_OF_ARTIFACT[own])) }),
      }
      const snapshots = await within(
        DEADLINE.read,
        (signal) => request.project.snapshots.list(filter, pageOf(paging), signal),
        reply,
      )
      return paginate(snapshots, paging, wireSnapshot)
    },
  )

  app.get(
    '/v1/snapshots/:id',
    {
      schema: {
        operationId: 'getSnapshot',
        summary: 'Show a snapshot',
        tags,
        params: Ref,
        response: { 200: WireSnapshot, ...FAILURES },
      },
    },
    async ({ params, project }, reply) =>
      wireSnapshot(await within(DEADLINE.read, (signal) => project.snapshots.get(params.id, signal), reply)),
  )

  app.delete(
    '/v1/snapshots/:id',
    {
      schema: {
        operationId: 'deleteSnapshot',
        summary: 'Delete a snapshot; others keep the bytes they need',
        tags,
        params: Ref,
        headers: PreferHeader,
        response: { 204: Nothing, ...FAILURES },
      },
    },
    async ({ params, project }, reply) => {
      const accepted = await within(DEADLINE.accept, (signal) => project.snapshots.delete(params.id, signal))
      await settle(reply, accepted, context.closing)
      return reply.code(204).send()
    },
  )

  app.post(
    '/v1/snapshots/:id/verify',
    {
      preHandler: countTransfer,
      schema: {
        operationId: 'verifySnapshot',
        summary: 'Reread every byte of a snapshot; no faults: all is well',
        tags,
        params: Ref,
        response: {
          200: z.object({ faults: z.array(z.object({ blob: z.string(), problem: z.string() })) }),
          ...FAILURES,
        },
      },
    },
    async ({ params, project }, reply) => ({
      faults: await within(DEADLINE.work, (signal) => project.snapshots.verify(params.id, signal), reply),
    }),
  )

  app.post(
    '/v1/snapshots/:id/export',
    {
      preHandler: countTransfer,
      schema: {
        operationId: 'exportSnapshot',
        summary: 'One tar file with everything needed to restore a snapshot elsewhere',
        tags,
        params: Ref,
        response: { 200: streamed(TAR, Bytes, 'The file'), ...FAILURES },
      },
    },
    async ({ params, project }, reply) =>
      withTemporaryFile(context.temporaryDirectory, 'export', async (file) => {
        const { started: expected, signal } = await context.streams.open(reply, DEADLINE.work, async (opened) => {
          await project.snapshots.exportTo(params.id, file, () => undefined, opened)
          return (await stat(file)).size
        })
        const data = createReadStream(file, { highWaterMark: 1_048_576 })
        await sendBytes(reply, { headers: { 'content-type': TAR }, expected }, data, signal)
      }),
  )

  app.register(async (raw: App) => {
    rawBodies(raw)
    raw.post(
      '/v1/snapshots/import',
      {
        preHandler: countTransfer,
        schema: {
          operationId: 'importSnapshot',
          summary: 'Take in what an export gave, under a new id',
          tags,
          consumes: [TAR],
          querystring: z.object({ name: DisplayName.exactOptional() }),
          body: Bytes,
          response: { 201: WireSnapshot, ...FAILURES },
        },
      },
      async (request, reply) =>
        withTemporaryFile(context.temporaryDirectory, 'import', async (file) => {
          const snapshot = await within(
            DEADLINE.work,
            async (signal) => {
              await receive(request, file, { what: 'the upload' }, context.withinSpace, signal)
              return request.project.snapshots.importFrom(file, request.query, () => undefined, signal)
            },
            reply,
          )
          request.resource = snapshot.metadata.name
          return reply
            .code(201)
            .header('location', `/v1/snapshots/${snapshot.metadata.name}`)
            .send(wireSnapshot(snapshot))
        }),
    )
  })
}
