import { sliceOf } from '@icebox/control'
import { IceboxError } from '@icebox/model'
import { z } from 'zod'
import type { App, Context } from '../context.ts'
import { DEADLINE, within } from '../deadline.ts'
import { optional } from '../schemas.ts'
import { isTemplate, parseName, requireName, snapshotInfo, snapshotsOf } from './names.ts'
import { presentSandbox, sendNext, settled } from './present.ts'
import { Part, REFUSALS, SandboxRef, SnapshotInfo, SnapshotRequest } from './schemas.ts'

/** Snapshots, which are templates to E2B: named ones by their name and a tag. */
export async function snapshotRoutes(app: App, context: Context): Promise<void> {
  app.post(
    '/sandboxes/:sandboxID/snapshots',
    {
      schema: {
        operationId: 'createSnapshot',
        summary:
          'Take a snapshot of a running sandbox, which runs on; it takes its name and tag from one that has them',
        tags: ['sandboxes'],
        params: SandboxRef,
        body: optional(SnapshotRequest),
        response: { 201: SnapshotInfo, ...REFUSALS },
      },
    },
    async (request, reply) => {
      const { params, body, project } = request
      const name = body.name === undefined ? undefined : requireName(project, body.name)
      const kind = body.memory ? ('memory' as const) : ('filesystem' as const)
      const snapshot = await settled(
        context,
        async (signal) => {
          const { metadata } = await presentSandbox(project, params.sandboxID, signal)
          if (name !== undefined && (await isTemplate(project, name.alias, signal)))
            throw new IceboxError('AlreadyExists', `'${name.alias}' is the name of a template`)
          const named = name === undefined ? {} : { name: name.alias, tags: [name.tag] }
          return project.snapshots.create(metadata.name, { kind, stop: false, replace: true, ...named }, signal)
        },
        ({ metadata }) => {
          request.resource = metadata.name
        },
      )
      return reply.code(201).send(snapshotInfo(project, snapshot))
    },
  )

  app.get(
    '/snapshots',
    {
      schema: {
        operationId: 'listSnapshots',
        summary: 'List snapshots, newest first',
        tags: ['snapshots'],
        querystring: z.object({
          sandboxID: z.string().min(1).exactOptional().describe('Of this sandbox, which may be gone.'),
          name: z.string().min(1).exactOptional().describe('Name or id, with a tag or without.'),
          ...Part,
        }),
        response: { 200: z.array(SnapshotInfo), ...REFUSALS },
      },
    },
    async ({ query, project }, reply) => {
      const { limit, nextToken } = query
      const name = query.name === undefined ? undefined : parseName(project, query.name)
      const page = { limit, after: nextToken }
      const { items, next } = await within(
        DEADLINE.read,
        async (signal) => {
          const sandbox = query.sandboxID
          if (query.name === undefined)
            return project.snapshots.list(
              { states: ['ready'], ...(sandbox === undefined ? {} : { sandbox }) },
              page,
              signal,
            )
          const named = name === undefined ? [] : await snapshotsOf(project, name, signal)
          const ready = named.filter(({ status }) => status.state === 'ready')
          return sliceOf(
            ready.filter(({ spec }) => sandbox === undefined || spec.sandbox === sandbox),
            page,
          )
        },
        reply,
      )
      sendNext(reply, next)
      return items.map((snapshot) => snapshotInfo(project, snapshot, name?.tag))
    },
  )
}
