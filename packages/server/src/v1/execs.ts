import type { Project } from '@icebox/control'
import {
  type ExecEvent,
  ExecExit,
  ExecInfo,
  ExecRequest,
  type ExecSession,
  type Guest,
  IceboxError,
  WireError,
} from '@icebox/model'
import type { FastifyReply } from 'fastify'
import { z } from 'zod'
import type { Called } from '../attached.ts'
import type { App, Context } from '../context.ts'
import { DEADLINE, within } from '../deadline.ts'
import { line, NDJSON, sendLines } from '../lines.ts'
import { flag, Offset } from '../parameters.ts'
import { rawBodies, readBody } from '../raw.ts'
import { Bytes, FAILURES, Nothing, Ref, streamed } from '../schemas.ts'

const Stream = z.enum(['stdout', 'stderr'])
const ExecLine = z.discriminatedUnion('type', [
  z.object({ type: z.literal('started'), exec: ExecInfo, attachment: z.string().optional() }),
  z.object({ type: z.literal('output'), stream: Stream, offset: z.int(), data: z.base64() }),
  z.object({ type: z.literal('gap'), stream: Stream, from: z.int(), to: z.int() }),
  z.object({ type: z.literal('exit'), exit: ExecExit }),
  z.object({ type: z.literal('error'), error: WireError }),
])
const ExecLines = streamed(
  NDJSON,
  ExecLine,
  'Lines of JSON: `started`, then `output` and `gap` as they come, last `exit` (or `error`). A stream without a last line was cut.',
)
const Acknowledge = flag
  .default(false)
  .describe(
    'What is sent counts as read only when the client acknowledges it, naming the `attachment` of the first line.',
  )
const ExecRef = Ref.extend({ exec: z.string().regex(/^\d{1,20}$/, 'must be the decimal id of an exec') })

/** Written by hand: base64 needs no escaping, and this is what every byte of output passes through. */
const eventLine = (event: ExecEvent): string => {
  if (event.type !== 'output') return line(event)
  const { buffer, byteOffset, byteLength } = event.data
  const data = Buffer.from(buffer, byteOffset, byteLength).toString('base64')
  return `{"type":"output","stream":"${event.stream}","offset":${event.offset},"data":"${data}"}\n`
}

async function* execLines(session: ExecSession, attachment: string | undefined): AsyncGenerator<string> {
  yield line({ type: 'started', exec: session.info, attachment })
  for await (const event of session.events) yield eventLine(event)
}

/** Processes in a sandbox. A client that goes away never ends one. */
export async function execRoutes(app: App, context: Context): Promise<void> {
  const tags = ['Execs']
  const guestOf = ({ project, id }: Called, signal: AbortSignal): Promise<Guest> => project.sandboxes.guest(id, signal)
  const called = ({ project, params }: { project: Project; params: { id: string } }): Called => ({
    project,
    id: params.id,
  })

  async function follow(
    reply: FastifyReply,
    sandbox: Called,
    acknowledged: boolean,
    start: (signal: AbortSignal) => Promise<ExecSession>,
  ): Promise<void> {
    const { started: session, signal } = await context.streams.open(reply, DEADLINE.reach, start)
    reply.request.resource = `${sandbox.id}/${session.info.id}`
    if (acknowledged) session.holdUntilAcknowledged()
    const attachment = context.execs.add(sandbox, session)
    try {
      const lines = execLines(session, acknowledged ? attachment : undefined)
      await sendLines(reply, lines, signal, (error) => ({ type: 'error', error }))
    } finally {
      context.execs.remove(sandbox, session)
      session.detach()
    }
  }

  /**
   * Runs `work`, which asks things of an attachment that a client has, else of one made for it. When that client leaves
   * meanwhile, what was asked is asked once more of one made for it.
   */
  async function attached(
    sandbox: Called,
    exec: string,
    signal: AbortSignal,
    work: (ask: (what: (session: ExecSession) => Promise<void>) => Promise<void>) => Promise<void>,
  ): Promise<void> {
    let own: ExecSession | undefined
    const attach = async () => {
      own = await (await guestOf(sandbox, signal)).attach(exec, 'none', signal)
      return own
    }
    let session = context.execs.get(sandbox, exec) ?? (await attach())
    try {
      await work(async (what) => {
        try {
          await what(session)
        } catch (thrown) {
          if (own !== undefined || IceboxError.from(thrown).code !== 'GuestFailed') throw thrown
          session = await attach()
          await what(session)
        }
      })
    } finally {
      own?.detach()
    }
  }

  async function execInfo(guest: Guest, exec: string, signal: AbortSignal): Promise<ExecInfo> {
    const info = (await guest.listExecs(signal)).find(({ id }) => id === exec)
    if (info === undefined)
      throw new IceboxError('NotFound', `the sandbox has no exec ${exec}`, {
        remedy: 'List the execs of the sandbox and use one of their ids.',
        details: { exec },
      })
    return info
  }

  const takenOf = async (sandbox: Called, exec: string, signal: AbortSignal): Promise<number> =>
    (await execInfo(await guestOf(sandbox, signal), exec, signal)).stdinBytes

  app.post(
    '/v1/sandboxes/:id/execs',
    {
      schema: {
        operationId: 'startExec',
        summary: 'Start a process and stream its output, or with `detach` only start it',
        tags,
        params: Ref,
        querystring: z.object({ detach: flag.default(false), acknowledge: Acknowledge }),
        body: ExecRequest,
        response: { 200: ExecLines, 201: ExecInfo, ...FAILURES },
      },
    },
    async (request, reply) => {
      const { params, query, body } = request
      if (!query.detach)
        return follow(reply, called(request), query.acknowledge, (signal) =>
          request.project.sandboxes.exec(params.id, body, signal),
        )
      const session = await within(DEADLINE.reach, (signal) => request.project.sandboxes.exec(params.id, body, signal))
      session.detach()
      request.resource = `${params.id}/${session.info.id}`
      return reply.code(201).send(session.info)
    },
  )

  app.get(
    '/v1/sandboxes/:id/execs',
    {
      schema: {
        operationId: 'listExecs',
        summary: 'List the processes started by execs, ended ones included while their output is kept',
        tags,
        params: Ref,
        response: { 200: z.array(ExecInfo), ...FAILURES },
      },
    },
    async (request, reply) =>
      within(DEADLINE.reach, async (signal) => (await guestOf(called(request), signal)).listExecs(signal), reply),
  )

  app.get(
    '/v1/sandboxes/:id/execs/:exec/output',
    {
      config: { frequent: true },
      schema: {
        operationId: 'followExec',
        summary: 'Stream the output of a process from given offsets; without them from the oldest byte kept',
        tags,
        params: ExecRef,
        querystring: z.object({
          stdoutFrom: Offset.exactOptional(),
          stderrFrom: Offset.exactOptional(),
          acknowledge: Acknowledge,
        }),
        response: { 200: ExecLines, ...FAILURES },
      },
    },
    async (request, reply) => {
      const { params, query } = request
      const from = {
        ...(query.stdoutFrom === undefined ? {} : { stdout: query.stdoutFrom }),
        ...(query.stderrFrom === undefined ? {} : { stderr: query.stderrFrom }),
      }
      return follow(reply, called(request), query.acknowledge, async (signal) =>
        (await guestOf(called(request), signal)).attach(params.exec, from, signal),
      )
    },
  )

  app.post(
    '/v1/sandboxes/:id/execs/:exec/acknowledge',
    {
      config: { frequent: true },
      schema: {
        operationId: 'acknowledgeExec',
        summary: 'Say which output has arrived, to a stream that was asked for with `acknowledge`',
        tags,
        params: ExecRef,
        body: z.object({ attachment: z.string(), stdout: Offset.exactOptional(), stderr: Offset.exactOptional() }),
        response: { 204: Nothing, ...FAILURES },
      },
    },
    async (request, reply) => {
      const { params, body } = request
      const session = context.execs.get(called(request), params.exec, body.attachment)
      if (session === undefined)
        throw new IceboxError('NotFound', `exec ${params.exec} has no stream ${body.attachment}`, {
          remedy: 'Follow the output again: the stream it came by has ended.',
        })
      session.acknowledge(body)
      return reply.code(204).send()
    },
  )

  app.post(
    '/v1/sandboxes/:id/execs/:exec/resize',
    {
      config: { frequent: true },
      schema: {
        operationId: 'resizeExec',
        summary: 'Set the window size of a process with a terminal',
        tags,
        params: ExecRef,
        body: ExecRequest.shape.pty.unwrap(),
        response: { 204: Nothing, ...FAILURES },
      },
    },
    async (request, reply) => {
      const { params, body } = request
      await within(DEADLINE.reach, (signal) =>
        attached(called(request), params.exec, signal, (ask) =>
          ask((session) => session.resize(body.cols, body.rows, signal)),
        ),
      )
      return reply.code(204).send()
    },
  )

  app.post(
    '/v1/sandboxes/:id/execs/:exec/signal',
    {
      schema: {
        operationId: 'signalExec',
        summary: 'Send a signal to the process group of a process',
        tags,
        params: ExecRef,
        body: z.object({ signal: z.string().regex(/^SIG[A-Z0-9+-]{2,12}$/, 'must be a name such as SIGINT') }),
        response: { 204: Nothing, ...FAILURES },
      },
    },
    async (request, reply) => {
      const { params, body } = request
      await within(DEADLINE.reach, (signal) =>
        attached(called(request), params.exec, signal, (ask) => ask((session) => session.kill(body.signal, signal))),
      )
      return reply.code(204).send()
    },
  )

  app.register(async (raw: App) => {
    rawBodies(raw)
    raw.post(
      '/v1/sandboxes/:id/execs/:exec/stdin',
      {
        config: { frequent: true },
        schema: {
          operationId: 'writeExecStdin',
          summary: 'Write to the stdin of a process; answers once the process has been given it',
          tags,
          consumes: ['application/octet-stream'],
          params: ExecRef,
          querystring: z.object({
            offset: Offset.exactOptional().describe(
              'Position of the first byte in the whole of stdin: what was taken before is skipped, so that a retry doubles nothing. Default: after what was taken.',
            ),
            close: flag.default(false).describe('End of file after these bytes.'),
          }),
          body: Bytes,
          response: { 204: Nothing, ...FAILURES },
        },
      },
      async (request, reply) => {
        const { params, query } = request
        await within(
          DEADLINE.work,
          (signal) =>
            attached(called(request), params.exec, signal, async (ask) => {
              let offset = query.offset ?? (await takenOf(called(request), params.exec, signal))
              for await (const data of readBody(request)) {
                const at = offset
                await ask((session) => session.writeStdin(data, { offset: at, signal }))
                offset += data.length
              }
              if (query.close) await ask((session) => session.closeStdin(signal))
            }),
          reply,
        )
        return reply.code(204).send()
      },
    )
  })
}
