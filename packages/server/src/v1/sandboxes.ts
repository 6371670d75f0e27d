import { type Accepted, WIRE_STATE_OF_SANDBOX, wireError, wireSandbox } from '@icebox/control'
import {
  ConnectSandbox,
  CreateSandbox,
  ForkResult,
  ForkSandbox,
  LogEntry,
  MetadataMap,
  PauseSandbox,
  page,
  RenewSandbox,
  RollbackSandbox,
  SANDBOX_STATES,
  type Sandbox,
  SandboxStats,
  WIRE_SANDBOX_STATES,
  WireSandbox,
} from '@icebox/model'
import type { FastifyReply } from 'fastify'
import { z } from 'zod'
import type { App, Context } from '../context.ts'
import { DEADLINE, within } from '../deadline.ts'
import { line, NDJSON, sendLines } from '../lines.ts'
import { PageQuery, pageOf, paginate } from '../page.ts'
import { flag, repeated } from '../parameters.ts'
import { PreferHeader, settle } from '../prefer.ts'
import { Bytes, FAILURES, Nothing, optional, Ref } from '../schemas.ts'
import { sendText } from '../text.ts'
import { checkCreate, checkLabels } from './dialect.ts'
import { refuseUnsupported } from './unsupported.ts'

async function* entryLines(entries: AsyncIterable<LogEntry>): AsyncGenerator<string> {
  for await (const entry of entries) yield line(entry)
}

async function* outputOf(entries: AsyncIterable<LogEntry>): AsyncGenerator<Uint8Array> {
  const encoder = new TextEncoder()
  for await (const { source, text } of entries) if (source !== 'lifecycle') yield encoder.encode(text)
}

export const IdempotencyKey = z
  .string()
  .regex(/^[\x20-\x7e]{1,255}$/, 'must be 1–255 printable ASCII characters')
  .describe('The same request sent again with the same key makes no other sandbox.')
const MetadataPatch = z.record(MetadataMap.keyType, MetadataMap.valueType.nullable())

/** Sandboxes and their lifecycle. */
export async function sandboxRoutes(app: App, context: Context): Promise<void> {
  const tags = ['Sandboxes']

  /** Accepts an operation and waits for it as long as preferred. */
  async function lifecycle(
    reply: FastifyReply,
    accept: (signal: AbortSignal) => Promise<Accepted<Sandbox>>,
    onFailure: (failed: Sandbox) => Promise<unknown> = async () => undefined,
  ): Promise<WireSandbox> {
    const accepted = await within(DEADLINE.accept, accept)
    const { name } = accepted.resource.metadata
    reply.request.resource = name
    const settled = await settle(reply, accepted, context.closing).catch(async (failure) => {
      await onFailure(accepted.resource)
      throw failure
    })
    if (settled !== undefined) return wireSandbox(settled)
    if (!reply.hasHeader('preference-applied')) return wireSandbox(accepted.resource)
    const { sandboxes } = reply.request.project
    return wireSandbox(await within(DEADLINE.read, (signal) => sandboxes.get(name, signal), reply))
  }

  app.post(
    '/v1/sandboxes',
    {
      preValidation: async (request) => {
        refuseUnsupported(request.body)
        checkCreate(request)
      },
      schema: {
        operationId: 'createSandbox',
        summary: 'Create a sandbox from a template, an image or a snapshot',
        tags,
        headers: PreferHeader.extend({ 'idempotency-key': IdempotencyKey.optional() }),
        body: CreateSandbox,
        response: { 202: WireSandbox, ...FAILURES },
      },
    },
    async (request, reply) => {
      const key = request.headers['idempotency-key']
      const body = key === undefined ? request.body : { ...request.body, key }
      const create = (signal: AbortSignal) => request.project.sandboxes.create(body, signal)
      // Whoever is told of the failure never learns the id: nothing may be left under it.
      const discard = (failed: Sandbox) =>
        within(DEADLINE.accept, (signal) => request.project.sandboxes.discard(failed, signal))
      const sandbox = await lifecycle(reply, create, discard)
      return reply.code(202).header('location', `/v1/sandboxes/${sandbox.id}`).send(sandbox)
    },
  )

  app.get(
    '/v1/sandboxes',
    {
      schema: {
        operationId: 'listSandboxes',
        summary: 'List sandboxes, newest first',
        tags,
        querystring: z.object({
          state: repeated(z.enum(WIRE_SANDBOX_STATES)).exactOptional().describe('Any of these states.'),
          metadata: z
            .string()
            .exactOptional()
            .describe('URL-encoded `key=value` pairs joined by `&`; a sandbox must have all of them.'),
          ...PageQuery,
        }),
        response: { 200: page(WireSandbox), ...FAILURES },
      },
    },
    async (request, reply) => {
      const { state, metadata, ...paging } = request.query
      const states = state && SANDBOX_STATES.filter((own) => state.includes(WIRE_STATE_OF_SANDBOX[own]))
      // Terminated: sandboxes that are gone are not listed.
      if (states?.length === 0) return paginate({ items: [], from: 0, total: 0 }, paging, wireSandbox)
      const filter = {
        ...(states === undefined ? {} : { states }),
        ...(metadata === undefined ? {} : { metadata: Object.fromEntries(new URLSearchParams(metadata)) }),
      }
      const sandboxes = await within(
        DEADLINE.read,
        (signal) => request.project.sandboxes.list(filter, pageOf(paging), signal),
        reply,
      )
      return paginate(sandboxes, paging, wireSandbox)
    },
  )

  app.get(
    '/v1/sandboxes/:id',
    {
      schema: {
        operationId: 'getSandbox',
        summary: 'Show a sandbox',
        tags,
        params: Ref,
        response: { 200: WireSandbox, ...FAILURES },
      },
    },
    async ({ params, project }, reply) =>
      wireSandbox(await within(DEADLINE.read, (signal) => project.sandboxes.get(params.id, signal), reply)),
  )

  app.delete(
    '/v1/sandboxes/:id',
    {
      schema: {
        operationId: 'deleteSandbox',
        summary: 'Delete a sandbox',
        tags,
        params: Ref,
        headers: PreferHeader,
        response: { 204: Nothing, ...FAILURES },
      },
    },
    async ({ params, project }, reply) => {
      const accepted = await within(DEADLINE.accept, (signal) => project.sandboxes.delete(params.id, signal))
      await settle(reply, accepted, context.closing)
      return reply.code(204).send()
    },
  )

  app.patch(
    '/v1/sandboxes/:id/metadata',
    {
      preValidation: async (request) => checkLabels(request, request.body, 'body'),
      schema: {
        operationId: 'patchSandboxMetadata',
        summary: 'Change metadata by a JSON merge patch: null deletes a key',
        tags,
        params: Ref,
        body: MetadataPatch,
        response: { 200: WireSandbox, ...FAILURES },
      },
    },
    async ({ params, body, project }) =>
      wireSandbox(await within(DEADLINE.read, (signal) => project.sandboxes.patchMetadata(params.id, body, signal))),
  )

  app.post(
    '/v1/sandboxes/:id/pause',
    {
      schema: {
        operationId: 'pauseSandbox',
        summary: 'Snapshot a sandbox and free its machine',
        tags,
        params: Ref,
        headers: PreferHeader,
        body: optional(PauseSandbox),
        response: { 202: WireSandbox, ...FAILURES },
      },
    },
    async ({ params, body, project }, reply) =>
      reply.code(202).send(await lifecycle(reply, (signal) => project.sandboxes.pause(params.id, body, signal))),
  )

  app.post(
    '/v1/sandboxes/:id/connect',
    {
      schema: {
        operationId: 'connectSandbox',
        summary: 'Wait until a sandbox runs, resuming it when it is paused, and keep it for a time',
        description: 'The end of its time is never brought nearer. `resumed` says whether it was paused.',
        tags,
        params: Ref,
        body: optional(ConnectSandbox),
        response: { 200: z.object({ sandbox: WireSandbox, resumed: z.boolean() }), ...FAILURES },
      },
    },
    async ({ params, body, project }, reply) => {
      const connected = await within(
        DEADLINE.accept,
        (signal) => project.sandboxes.connect(params.id, body, signal),
        reply,
      )
      return { sandbox: wireSandbox(connected.sandbox), resumed: connected.resumed }
    },
  )

  app.post(
    '/v1/sandboxes/:id/resume',
    {
      schema: {
        operationId: 'resumeSandbox',
        summary: 'Restore a paused sandbox under the same id',
        tags,
        params: Ref,
        headers: PreferHeader,
        response: { 202: WireSandbox, ...FAILURES },
      },
    },
    async ({ params, project }, reply) =>
      reply.code(202).send(await lifecycle(reply, (signal) => project.sandboxes.resume(params.id, signal))),
  )

  app.post(
    '/v1/sandboxes/:id/rollback',
    {
      schema: {
        operationId: 'rollbackSandbox',
        summary: 'Restore a sandbox from an earlier snapshot of its own line',
        tags,
        params: Ref,
        headers: PreferHeader,
        body: RollbackSandbox,
        response: { 202: WireSandbox, ...FAILURES },
      },
    },
    async ({ params, body, project }, reply) =>
      reply
        .code(202)
        .send(await lifecycle(reply, (signal) => project.sandboxes.rollback(params.id, body.snapshotId, signal))),
  )

  app.post(
    '/v1/sandboxes/:id/renew-expiration',
    {
      schema: {
        operationId: 'renewSandboxExpiration',
        summary: 'Set when the time of a sandbox is over',
        tags,
        params: Ref,
        body: RenewSandbox,
        response: { 200: z.object({ expiresAt: WireSandbox.shape.expiresAt }), ...FAILURES },
      },
    },
    async ({ params, body, project }) => {
      const sandbox = await within(DEADLINE.read, (signal) => project.sandboxes.renew(params.id, body, signal))
      return { expiresAt: sandbox.spec.expiresAt }
    },
  )

  app.post(
    '/v1/sandboxes/:id/fork',
    {
      schema: {
        operationId: 'forkSandbox',
        summary: 'One snapshot of a running sandbox and `count` restores of it; answers when all have settled',
        tags,
        params: Ref,
        body: optional(ForkSandbox),
        response: { 201: z.array(ForkResult), ...FAILURES },
      },
    },
    async ({ params, body, project }, reply) => {
      const children = await within(DEADLINE.work, (signal) => project.sandboxes.fork(params.id, body, signal))
      return reply
        .code(201)
        .send(
          children.map((child) =>
            'error' in child ? { error: wireError(child.error) } : { sandbox: wireSandbox(child.sandbox) },
          ),
        )
    },
  )

  app.get(
    '/v1/sandboxes/:id/stats',
    {
      schema: {
        operationId: 'getSandboxStats',
        summary: 'What a sandbox uses',
        tags,
        params: Ref,
        response: { 200: SandboxStats, ...FAILURES },
      },
    },
    async ({ params, project }, reply) =>
      within(DEADLINE.read, (signal) => project.sandboxes.stats(params.id, signal), reply),
  )

  app.get(
    '/v1/sandboxes/:id/logs',
    {
      schema: {
        operationId: 'getSandboxLogs',
        summary: 'Output of the start command or entrypoint',
        tags,
        params: Ref,
        querystring: z.object({ follow: flag.default(false).describe('Go on with what comes.') }),
        description:
          'What the start command and the entrypoint wrote, as text; with `Accept: application/x-ndjson` entries that have times and what became of the sandbox, too. Both are kept outside the sandbox, whatever its state.',
        response: {
          200: {
            description: 'Text as the process wrote it, or one entry a line',
            content: { 'text/plain': { schema: Bytes }, [NDJSON]: { schema: LogEntry } },
          },
          ...FAILURES,
        },
      },
    },
    async ({ params, query, project }, reply) => {
      const { started: logs, signal } = await context.streams.open(reply, DEADLINE.read, (opened) =>
        project.sandboxes.logs(params.id, query, opened),
      )
      if (reply.request.headers.accept?.includes(NDJSON) === true)
        await sendLines(reply, entryLines(logs), signal, (error) => ({ error }))
      else await sendText(reply, outputOf(logs), signal)
    },
  )
}
