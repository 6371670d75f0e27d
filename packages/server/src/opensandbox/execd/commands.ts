import { EnvVars, type ExecInfo, type ExecInput, type ExecSession, type Guest, isError } from '@icebox/model'
import { z } from 'zod'
import type { App } from '../../context.ts'
import { DEADLINE, within } from '../../deadline.ts'
import { Offset } from '../../parameters.ts'
import { environment } from './environment.ts'
import { exitCodeOf, failureOf, type StreamEvent, sendEvents } from './events.ts'
import type { Execd } from './facade.ts'
import { ExecdError } from './failure.ts'
import { outputSince } from './output.ts'
import { BACKGROUND, commandInfo, endCommand, FOREGROUND, runInForeground, sendNotStarted } from './running.ts'
import { endRuns } from './sessions.ts'
import { execShell } from './shell.ts'

const CURSOR_HEADER = 'execd-commands-tail-cursor'
/** Bytes of output that are kept of a command in the background: what is older is gone from its logs. */
const KEPT = 16_777_216
/** Before the text of a command in the background, on its first line: its log is one stream, in the order it was written. */
const MERGE = 'exec 2>&1; '

const Id = z.int().min(0).max(4_294_967_294)
const Command = z
  .object({
    /** For a shell. */
    command: z.string().min(1).nullish(),
    /** Or program and arguments, without one. */
    argv: z.array(z.string()).min(1).nullish(),
    cwd: z.string().nullish(),
    background: z.boolean().nullish(),
    /** Milliseconds; 0: none. */
    timeout: z.int().min(0).nullish(),
    uid: Id.nullish(),
    gid: Id.nullish(),
    envs: EnvVars.nullish(),
  })
  .refine(({ command, argv }) => (typeof command === 'string') !== Array.isArray(argv), {
    error: 'give either command or argv',
  })
  .refine(({ uid, gid }) => typeof gid !== 'number' || typeof uid === 'number', {
    error: 'uid is required when gid is given',
  })
type Command = z.infer<typeof Command>

const limits = ({ timeout, cwd }: Command): Pick<ExecInput, 'timeoutMs' | 'cwd'> => ({
  ...(typeof timeout === 'number' && timeout > 0 ? { timeoutMs: timeout } : {}),
  ...(typeof cwd === 'string' && cwd !== '' ? { cwd } : {}),
})

/** Such as uid 1000 with gid 1000. */
const userOf = ({ uid, gid }: Command): Pick<ExecInput, 'user'> =>
  typeof uid !== 'number' ? {} : { user: typeof gid === 'number' ? `${uid}:${gid}` : `${uid}` }

/** There is no such program or working directory. */
class NotStarted extends ExecdError {}

/** Starts what the request asks for. */
async function start(guest: Guest, body: Command, background: boolean, signal: AbortSignal): Promise<ExecSession> {
  const request = {
    ...limits(body),
    ...userOf(body),
    env: { ...(await environment(guest, signal)), ...body.envs },
    ...(background
      ? { tag: BACKGROUND, keepBytes: KEPT, overflow: 'drop' as const }
      : { tag: FOREGROUND, overflow: 'block' as const }),
  }
  try {
    if (Array.isArray(body.argv)) {
      const argv = background ? ['sh', '-c', `${MERGE}exec "$@"`, 'sh', ...body.argv] : body.argv
      return await guest.exec({ ...request, argv }, signal)
    }
    const text = background ? `${MERGE}${body.command}` : `${body.command}`
    return await execShell(guest, (shell) => [shell, '-c', text], request, signal)
  } catch (thrown) {
    if (isError(thrown, 'NotFound')) throw new NotStarted('invalid', 'InvalidArgument', thrown.message)
    throw thrown
  }
}

/** The text of a command as it was asked for. */
function contentOf({ argv, tag }: ExecInfo): string {
  const [, , text = '', , ...rest] = argv
  if (tag === BACKGROUND && text.startsWith(MERGE)) return rest.length > 0 ? rest.join(' ') : text.slice(MERGE.length)
  return argv[1] === '-c' ? text : argv.join(' ')
}

/** Commands, in the foreground and in the background. */
export async function commandRoutes(app: App, execd: Execd): Promise<void> {
  app.post('/command', { schema: { body: Command } }, async (request, reply) => {
    const { body } = request
    if (body.background !== true) {
      try {
        await runInForeground(execd, request, reply, (guest, signal) => start(guest, body, false, signal))
      } catch (thrown) {
        if (!(thrown instanceof NotStarted) || !Array.isArray(body.argv)) throw thrown
        await sendNotStarted(execd, reply, thrown.message)
      }
      return
    }
    const startedAt = performance.now()
    const { started: session, signal } = await execd.streams.open(reply, DEADLINE.read, async (opened) =>
      start(await execd.guest(request, opened), body, true, opened),
    )
    session.detach()
    const events = async function* (): AsyncGenerator<StreamEvent[]> {
      const execution_time = Math.round(performance.now() - startedAt)
      yield [
        { type: 'init', text: session.info.id },
        { type: 'execution_complete', execution_time },
      ]
    }
    await sendEvents(reply, events(), signal)
  })

  app.delete('/command', { schema: { querystring: z.object({ id: z.string().min(1) }) } }, async (request, reply) => {
    const { id } = request.query
    await within(DEADLINE.read, async (signal) => {
      const guest = await execd.guest(request, signal)
      if (await endRuns(guest, id, signal)) return
      const { exit } = await commandInfo(guest, id, signal)
      if (exit === undefined) await endCommand(guest, id, signal)
    })
    return reply.send()
  })

  const Params = z.object({ id: z.string().min(1) })
  app.get('/command/status/:id', { schema: { params: Params } }, async (request, reply) =>
    within(
      DEADLINE.read,
      async (signal) => {
        const info = await commandInfo(await execd.guest(request, signal), request.params.id, signal)
        const failure = info.exit && failureOf(info.exit)
        return {
          id: info.id,
          content: contentOf(info),
          running: info.exit === undefined,
          started_at: info.startedAt,
          ...(info.exit === undefined ? {} : { exit_code: exitCodeOf(info.exit) }),
          ...(failure === undefined ? {} : { error: failure }),
        }
      },
      reply,
    ),
  )

  app.get(
    '/command/:id/logs',
    { schema: { params: Params, querystring: z.object({ cursor: Offset.default(0) }) } },
    async (request, reply) => {
      const { params, query } = request
      const { text, end } = await within(
        DEADLINE.read,
        async (signal) => {
          const guest = await execd.guest(request, signal)
          const info = await commandInfo(guest, params.id, signal)
          if (info.tag !== BACKGROUND)
            throw new ExecdError('invalid', 'InvalidArgument', `command ${params.id} does not run in the background`)
          return outputSince(guest, info, query.cursor, execd.hold(request, reply), signal)
        },
        reply,
      )
      return reply.header(CURSOR_HEADER, end).type('text/plain; charset=utf-8').send(text)
    },
  )
}
