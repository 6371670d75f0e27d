import { IceboxError, type Sandbox } from '@icebox/model'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import type { App, Context } from '../context.ts'
import { DEADLINE, within } from '../deadline.ts'
import { Nothing, optional } from '../schemas.ts'
import { e2bError } from './error.ts'
import { exactSandbox, openedSandbox, presentSandbox, settled } from './present.ts'
import {
  ConnectRequest,
  ConnectRequestV2,
  E2bSandbox,
  ForkRequest,
  ForkResult,
  lifetime,
  NetworkUpdate,
  PauseRequest,
  REFUSALS,
  RefreshRequest,
  ResumeRequest,
  SandboxRef,
  TimeoutRequest,
} from './schemas.ts'

/** Seconds that a refresh gives at least. */
const SHORTEST_REFRESH = 15

/** What changes a sandbox: pause, resume, connect, fork, its time and its network settings. */
export async function lifecycleRoutes(app: App, context: Context): Promise<void> {
  const tags = ['sandboxes']
  const opened = (request: FastifyRequest, sandbox: Sandbox) => openedSandbox(context, request, sandbox)

  app.post(
    '/sandboxes/:sandboxID/pause',
    {
      schema: {
        operationId: 'pauseSandbox',
        summary: 'Pause a sandbox; without `memory` only its files are kept',
        tags,
        params: SandboxRef,
        body: optional(PauseRequest),
        response: { 204: Nothing, ...REFUSALS },
      },
    },
    async ({ params, body, project }, reply) => {
      await settled(context, async (signal) => {
        const { metadata, status } = await presentSandbox(project, params.sandboxID, signal)
        if (status.state === 'paused')
          throw new IceboxError('InvalidState', `sandbox '${metadata.name}' is already paused`)
        return project.sandboxes.pause(metadata.name, { kind: body.memory ? 'memory' : 'filesystem' }, signal)
      })
      return reply.code(204).send()
    },
  )

  app.post(
    '/sandboxes/:sandboxID/resume',
    {
      schema: {
        operationId: 'resumeSandbox',
        summary: 'Resume a paused sandbox; older than connect',
        tags,
        params: SandboxRef,
        body: optional(ResumeRequest),
        response: { 201: E2bSandbox, ...REFUSALS },
      },
    },
    async (request, reply) => {
      const { params, body, project } = request
      const { timeout, autoPause } = body
      const paused = await within(DEADLINE.read, (signal) => presentSandbox(project, params.sandboxID, signal))
      const { name } = paused.metadata
      if (paused.status.state === 'running')
        throw new IceboxError('InvalidState', `sandbox '${name}' is already running`)
      await refuseReboot(body.memory, paused, request)
      if (autoPause !== undefined)
        await within(DEADLINE.read, (signal) =>
          project.sandboxes.update(name, { onTimeout: autoPause ? 'pause' : 'kill' }, signal),
        )
      const { sandbox } = await within(DEADLINE.work, (signal) =>
        project.sandboxes.connect(name, { timeout: lifetime(timeout) }, signal),
      )
      return reply.code(201).send(opened(request, sandbox))
    },
  )

  async function connect(
    request: FastifyRequest,
    reply: FastifyReply,
    id: string,
    body: z.infer<typeof ConnectRequest>,
  ) {
    const { project } = request
    const present = await within(DEADLINE.read, async (signal) => {
      const found = await exactSandbox(project, id, signal)
      // One on its way out is told apart from one that is gone: the service says so.
      return found.status.state === 'deleting' ? found : presentSandbox(project, id, signal)
    })
    await refuseReboot(body.memory, present, request)
    const { sandbox, resumed } = await within(DEADLINE.work, (signal) =>
      project.sandboxes.connect(present.metadata.name, { timeout: lifetime(body.timeout) }, signal),
    )
    return reply.code(resumed ? 201 : 200).send(opened(request, sandbox))
  }

  app.post(
    '/sandboxes/:sandboxID/connect',
    {
      schema: {
        operationId: 'connectSandbox',
        summary: 'Wait until a sandbox runs, resuming it when it is paused (201); its end only ever moves away',
        tags,
        params: SandboxRef,
        body: ConnectRequest,
        response: { 200: E2bSandbox, 201: E2bSandbox, ...REFUSALS },
      },
    },
    async (request, reply) => connect(request, reply, request.params.sandboxID, request.body),
  )

  app.post(
    '/v2/sandboxes/:sandboxID/connect',
    {
      schema: {
        operationId: 'connectSandboxV2',
        summary: 'The same; the body may be left out',
        tags,
        params: SandboxRef,
        body: optional(ConnectRequestV2),
        response: { 200: E2bSandbox, 201: E2bSandbox, ...REFUSALS },
      },
    },
    async (request, reply) => connect(request, reply, request.params.sandboxID, request.body),
  )

  app.post(
    '/sandboxes/:sandboxID/fork',
    {
      schema: {
        operationId: 'forkSandbox',
        summary: 'Make sandboxes that go on from a running one; each succeeds or fails on its own',
        tags,
        params: SandboxRef,
        body: optional(ForkRequest),
        response: { 201: z.array(ForkResult), ...REFUSALS },
      },
    },
    async (request, reply) => {
      const { params, body, project } = request
      const children = await within(DEADLINE.work, async (signal) => {
        const { metadata } = await presentSandbox(project, params.sandboxID, signal)
        return project.sandboxes.fork(metadata.name, { ...body, timeout: lifetime(body.timeout), env: {} }, signal)
      })
      return reply
        .code(201)
        .send(
          children.map((child) =>
            'error' in child ? { error: e2bError(child.error) } : { sandbox: opened(request, child.sandbox) },
          ),
        )
    },
  )

  app.post(
    '/sandboxes/:sandboxID/timeout',
    {
      schema: {
        operationId: 'setSandboxTimeout',
        summary: 'Set how many seconds a running sandbox has left',
        tags,
        params: SandboxRef,
        body: TimeoutRequest,
        response: { 204: Nothing, ...REFUSALS },
      },
    },
    async ({ params, body, project }, reply) => {
      await within(DEADLINE.read, async (signal) => {
        const { metadata } = await presentSandbox(project, params.sandboxID, signal)
        await project.sandboxes.renew(metadata.name, { timeout: lifetime(body.timeout) }, signal)
      })
      return reply.code(204).send()
    },
  )

  app.post(
    '/sandboxes/:sandboxID/refreshes',
    {
      schema: {
        operationId: 'refreshSandbox',
        summary: 'Let a running sandbox live at least so many seconds more',
        tags,
        params: SandboxRef,
        body: optional(RefreshRequest),
        response: { 204: Nothing, ...REFUSALS },
      },
    },
    async ({ params, body, project }, reply) => {
      await within(DEADLINE.read, async (signal) => {
        const { metadata } = await presentSandbox(project, params.sandboxID, signal)
        const timeout = Math.max(SHORTEST_REFRESH, body.duration)
        await project.sandboxes.renew(metadata.name, { timeout, onlyExtend: true }, signal)
      })
      return reply.code(204).send()
    },
  )

  app.put(
    '/sandboxes/:sandboxID/network',
    {
      schema: {
        operationId: 'updateSandboxNetwork',
        summary: 'Replace the settings of the way out of a sandbox, which are kept and shown but open nothing',
        tags,
        params: SandboxRef,
        body: optional(NetworkUpdate),
        response: { 204: Nothing, ...REFUSALS },
      },
    },
    async ({ params, body, project }, reply) => {
      await within(DEADLINE.read, async (signal) => {
        const { metadata, spec, status } = await presentSandbox(project, params.sandboxID, signal)
        if (status.state !== 'running')
          throw new IceboxError('InvalidState', `sandbox '${metadata.name}' is ${status.state}, not running`)
        const { allow_internet_access: _always, ...egress } = body
        const { maskRequestHost, httpsPorts } = spec.network ?? {}
        const kept = {
          ...(maskRequestHost === undefined ? {} : { maskRequestHost }),
          ...(httpsPorts === undefined ? {} : { httpsPorts }),
        }
        await project.sandboxes.update(metadata.name, { network: { ...kept, ...egress } }, signal)
      })
      return reply.code(204).send()
    },
  )
}

/** A sandbox that was paused with its memory comes back with it, and is not quietly booted or not booted. */
async function refuseReboot(memory: boolean | undefined, sandbox: Sandbox, { project }: FastifyRequest): Promise<void> {
  const { pausedIn, state } = sandbox.status
  if (memory !== false || state !== 'paused' || pausedIn === undefined) return
  const { spec } = await within(DEADLINE.read, (signal) => project.snapshots.get(pausedIn, signal))
  if (spec.kind === 'memory')
    throw new IceboxError('InvalidArgument', `memory: sandbox '${sandbox.metadata.name}' was paused with its memory`, {
      remedy: 'Connect without `memory: false`, or pause it with `memory: false` before.',
    })
}
