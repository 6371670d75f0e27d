import type { PageRequest } from '@icebox/control'
import { IceboxError, type Sandbox, type SandboxState } from '@icebox/model'
import type { FastifyRequest } from 'fastify'
import { z } from 'zod'
import type { App, Context } from '../context.ts'
import { DEADLINE, within } from '../deadline.ts'
import { Nothing } from '../schemas.ts'
import { IdempotencyKey } from '../v1/sandboxes.ts'
import { metadataFilter } from './metadata-filter.ts'
import { parseName, sourceOf } from './names.ts'
import { domainOf, exactSandbox, openedSandbox, presentSandbox, sendNext, settled, toldTokens } from './present.ts'
import {
  commas,
  E2bSandbox,
  ListedSandbox,
  lifetime,
  NewSandbox,
  NewSandboxV2,
  Part,
  REFUSALS,
  SandboxDetail,
  SandboxRef,
  SandboxState as State,
} from './schemas.ts'
import { listedSandbox, sandboxDetail } from './wire.ts'

const RUNNING: SandboxState[] = ['running', 'pausing', 'resuming']
const Idempotent = z.looseObject({ 'idempotency-key': IdempotencyKey.optional() })

/** Creating, showing, listing and killing. */
export async function sandboxRoutes(app: App, context: Context): Promise<void> {
  const tags = ['sandboxes']

  async function create(
    request: FastifyRequest,
    body: NewSandboxV2 & { secure: boolean },
    key: string | undefined,
  ): Promise<E2bSandbox> {
    refuseUnsupported(body)
    const { project } = request
    const { network, autoPause, autoPauseMemory = true, autoResume } = body
    const source = await within(DEADLINE.read, (signal) => sourceOf(project, body.templateID, signal))
    const wanted = {
      ...source,
      env: body.envVars,
      metadata: body.metadata,
      timeout: lifetime(body.timeout),
      onTimeout: autoPause ? ('pause' as const) : ('kill' as const),
      pauseKind: autoPauseMemory ? ('memory' as const) : ('filesystem' as const),
      autoResume: autoResume?.enabled ?? false,
      secure: body.secure,
      publicTraffic: network?.allowPublicTraffic ?? true,
      ...(network === undefined ? {} : { network }),
      ...(key === undefined ? {} : { key }),
    }
    let intent: Sandbox | undefined
    try {
      const sandbox = await settled(
        context,
        (signal) => project.sandboxes.create(wanted, signal),
        (resource) => {
          intent = resource
          request.resource = resource.metadata.name
        },
      )
      return openedSandbox(context, request, sandbox)
    } catch (error) {
      // Whoever is told of the failure never learns the id: nothing may be left under it.
      const failed = intent
      if (failed !== undefined) await within(DEADLINE.accept, (signal) => project.sandboxes.discard(failed, signal))
      throw error
    }
  }

  app.post(
    '/v2/sandboxes',
    {
      schema: {
        operationId: 'createSandboxV2',
        summary: 'Create a sandbox; its guest services ask for its access token',
        tags,
        headers: Idempotent,
        body: NewSandboxV2,
        response: { 201: E2bSandbox, ...REFUSALS },
      },
    },
    async (request, reply) => {
      const key = request.headers['idempotency-key']
      return reply.code(201).send(await create(request, { ...request.body, secure: true }, key))
    },
  )

  app.post(
    '/sandboxes',
    {
      schema: {
        operationId: 'createSandbox',
        summary: 'Create a sandbox',
        tags,
        headers: Idempotent,
        body: NewSandbox,
        response: { 201: E2bSandbox, ...REFUSALS },
      },
    },
    async (request, reply) => {
      const key = request.headers['idempotency-key']
      return reply.code(201).send(await create(request, request.body, key))
    },
  )

  app.get(
    '/sandboxes',
    {
      schema: {
        operationId: 'listRunningSandboxes',
        summary: 'List running sandboxes',
        tags,
        querystring: z.object({ metadata: z.string().exactOptional() }),
        response: { 200: z.array(ListedSandbox), ...REFUSALS },
      },
    },
    async ({ query, project }, reply) => {
      const filter = { states: RUNNING, ...metadataFilter(query.metadata) }
      const page = { limit: Number.POSITIVE_INFINITY }
      const { items } = await within(DEADLINE.read, (signal) => project.sandboxes.list(filter, page, signal), reply)
      return items.map(listedSandbox)
    },
  )

  app.get(
    '/v2/sandboxes',
    {
      schema: {
        operationId: 'listSandboxes',
        summary: 'List running and paused sandboxes, newest first',
        tags,
        querystring: z.object({
          state: commas(State, 10).exactOptional(),
          metadata: z
            .string()
            .exactOptional()
            .describe('`key=value` pairs joined by `&`, keys and values URL-encoded; a sandbox must have all of them.'),
          template: z.string().min(1).exactOptional(),
          startedAfter: z.iso.datetime({ offset: true }).exactOptional(),
          order: z.enum(['asc', 'desc']).default('desc'),
          ...Part,
        }),
        response: { 200: z.array(ListedSandbox), ...REFUSALS },
      },
    },
    async ({ query, project }, reply) => {
      const wanted = query.state ?? State.options
      const template = query.template === undefined ? undefined : parseName(project, query.template)
      const filter = {
        states: wanted.flatMap((state): SandboxState[] => (state === 'paused' ? ['paused'] : RUNNING)),
        ...(query.template === undefined ? {} : { origin: template?.alias ?? query.template }),
        ...metadataFilter(query.metadata),
        ...(query.startedAfter === undefined ? {} : { createdFrom: new Date(query.startedAfter).toISOString() }),
      }
      const list = (states: SandboxState[], page: PageRequest) =>
        within(DEADLINE.read, (signal) => project.sandboxes.list({ ...filter, states }, page, signal), reply)
      const order = query.order === 'asc' ? 'oldest' : 'newest'
      const { items, next } = await list(filter.states, { limit: query.limit, after: query.nextToken, order })
      if (wanted.includes('running')) reply.header('x-total-running', String((await list(RUNNING, { limit: 0 })).total))
      sendNext(reply, next)
      return items.map(listedSandbox)
    },
  )

  app.get(
    '/sandboxes/:sandboxID',
    {
      schema: {
        operationId: 'getSandbox',
        summary: 'Show a sandbox',
        tags,
        params: SandboxRef,
        response: { 200: SandboxDetail, ...REFUSALS },
      },
    },
    async (request, reply) => {
      const { params, project } = request
      const sandbox = await within(DEADLINE.read, (signal) => presentSandbox(project, params.sandboxID, signal), reply)
      return sandboxDetail(sandbox, toldTokens(context, sandbox), domainOf(context, request))
    },
  )

  app.delete(
    '/sandboxes/:sandboxID',
    {
      schema: {
        operationId: 'killSandbox',
        summary: 'Kill a sandbox, also a paused one',
        tags,
        params: SandboxRef,
        response: { 204: Nothing, ...REFUSALS },
      },
    },
    async ({ params, project }, reply) => {
      await settled(context, async (signal) => {
        const { metadata, status } = await exactSandbox(project, params.sandboxID, signal)
        if (status.state === 'deleting') await presentSandbox(project, metadata.name, signal)
        return project.sandboxes.delete(metadata.name, signal)
      })
      return reply.code(204).send()
    },
  )
}

const isEmpty = (value: unknown): boolean =>
  value === undefined || value === null || (typeof value === 'object' && Object.keys(value).length === 0)

/** Throws `InvalidArgument` for what would make the sandbox another one than was asked for. */
function refuseUnsupported(body: NewSandboxV2): void {
  const refuse = (field: string, why: string) => {
    throw new IceboxError('InvalidArgument', `${field}: ${why}`, {
      details: { field: `body.${field}` },
      remedy: 'Leave the named field out.',
    })
  }
  if (!isEmpty(body.volumeMounts)) refuse('volumeMounts', 'there are no volumes')
  if (!isEmpty(body.iam)) refuse('iam', 'there are no workload identities')
  if (!isEmpty(body.mcp)) refuse('mcp', 'there is no MCP gateway')
  if (body.autoPauseMemory === false && body.autoResume?.enabled === true)
    refuse('autoResume', 'a sandbox that is paused without its memory is resumed by connect only')
}
