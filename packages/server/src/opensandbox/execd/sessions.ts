import { randomUUID } from 'node:crypto'
import { type ExecSession, type Guest, IceboxError, isError } from '@icebox/model'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { z } from 'zod'
import type { App } from '../../context.ts'
import { DEADLINE, within } from '../../deadline.ts'
import { optional } from '../../schemas.ts'
import { environment } from './environment.ts'
import type { Execd } from './facade.ts'
import { ExecdError } from './failure.ts'
import { endCommand, runInForeground, sessionTag } from './running.ts'
import { createArgv, runArgv, SESSIONS, sessionDirectory } from './session-shell.ts'

/** Bytes of what a shell that makes a session says of why it cannot. */
const WORDS = 4096
const FORM = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/
const unknown = (session: string) => new ExecdError('context', 'NotFound', `there is no session ${session}`)

/** Throws that there is none. */
export async function requireSession(guest: Guest, session: string, signal: AbortSignal): Promise<void> {
  if (!FORM.test(session)) throw unknown(session)
  try {
    await guest.stat(sessionDirectory(session), {}, signal)
  } catch (thrown) {
    throw isError(thrown, 'NotFound') ? unknown(session) : thrown
  }
}

/** Ids of all of them. */
export async function listSessions(guest: Guest, signal: AbortSignal): Promise<string[]> {
  try {
    const entries = await guest.list(SESSIONS.directory, {}, signal)
    return entries
      .filter(({ name }) => name.startsWith(SESSIONS.prefix))
      .map(({ name }) => name.slice(SESSIONS.prefix.length))
  } catch (thrown) {
    if (isError(thrown, 'NotFound')) return []
    throw thrown
  }
}

/** Begins one and gives its id. */
export async function createSession(guest: Guest, cwd: string, signal: AbortSignal): Promise<string> {
  const session = randomUUID()
  const argv = createArgv(session, cwd)
  const running = await guest.exec({ argv, env: await environment(guest, signal), overflow: 'drop' }, signal)
  let exited = false
  let said = Buffer.alloc(0)
  try {
    for await (const event of running.events) {
      if (event.type === 'output') said = Buffer.concat([said, event.data.subarray(0, WORDS - said.length)])
      if (event.type === 'exit') {
        exited = true
        if (event.exit.exitCode === 0) return session
      }
      if (!exited && said.length >= WORDS) break
    }
  } finally {
    // It says nothing unless it fails: one that goes on saying something is no shell.
    if (!exited) await running.kill('SIGKILL', AbortSignal.timeout(DEADLINE.read)).catch(() => undefined)
    running.detach()
  }
  throw new IceboxError('InvalidArgument', `the session could not be created: ${said.toString().trim()}`)
}

/** What runs in a session ends, whatever it was. Gives whether the id is that of a session. */
export async function endRuns(guest: Guest, session: string, signal: AbortSignal): Promise<boolean> {
  if (!FORM.test(session)) return false
  await requireSession(guest, session, signal)
  const runs = (await guest.listExecs(signal)).filter(
    ({ tag, exit }) => tag === sessionTag(session) && exit === undefined,
  )
  await Promise.all(runs.map(({ id }) => endCommand(guest, id, signal)))
  return true
}

export async function deleteSession(guest: Guest, session: string, signal: AbortSignal): Promise<void> {
  if (!(await endRuns(guest, session, signal))) throw unknown(session)
  await guest.remove(sessionDirectory(session), {}, signal)
}

/** Runs a command in a session and answers with what it does. */
export async function runInSession(
  execd: Execd,
  request: FastifyRequest,
  reply: FastifyReply,
  run: { session: string; command: string; cwd?: string; timeoutMs?: number },
): Promise<void> {
  const { session, command, cwd = '', timeoutMs } = run
  const rest = {
    tag: sessionTag(session),
    overflow: 'block' as const,
    ...(timeoutMs === undefined || timeoutMs === 0 ? {} : { timeoutMs }),
  }
  await runInForeground(execd, request, reply, async (guest, signal): Promise<ExecSession> => {
    await requireSession(guest, session, signal)
    const shell = await shellOf(guest, signal)
    return guest.exec({ ...rest, argv: runArgv(shell, session, command, cwd) }, signal)
  })
}

/** The name of the shell that the sandbox has. */
async function shellOf(guest: Guest, signal: AbortSignal): Promise<'bash' | 'sh'> {
  for (const directory of ['/bin', '/usr/bin', '/usr/local/bin'])
    try {
      await guest.stat(`${directory}/bash`, {}, signal)
      return 'bash'
    } catch (thrown) {
      if (!isError(thrown, 'NotFound')) throw thrown
    }
  return 'sh'
}

/** Shells whose working directory and environment last from one run to the next. */
export async function sessionRoutes(app: App, execd: Execd): Promise<void> {
  app.post(
    '/session',
    { schema: { body: optional(z.object({ cwd: z.string().nullish() })) } },
    async (request, reply) =>
      within(
        DEADLINE.read,
        async (signal) => {
          const guest = await execd.guest(request, signal)
          return { session_id: await createSession(guest, request.body.cwd ?? '', signal) }
        },
        reply,
      ),
  )

  const Params = z.object({ id: z.string().min(1) })
  app.post(
    '/session/:id/run',
    {
      schema: {
        params: Params,
        body: z.object({ command: z.string().min(1), cwd: z.string().nullish(), timeout: z.int().min(0).nullish() }),
      },
    },
    async (request, reply) => {
      const { command, cwd, timeout } = request.body
      await runInSession(execd, request, reply, {
        session: request.params.id,
        command,
        ...(typeof cwd === 'string' ? { cwd } : {}),
        ...(typeof timeout === 'number' ? { timeoutMs: timeout } : {}),
      })
    },
  )

  app.delete('/session/:id', { schema: { params: Params } }, async (request, reply) => {
    await within(DEADLINE.read, async (signal) =>
      deleteSession(await execd.guest(request, signal), request.params.id, signal),
    )
    return reply.send()
  })
}
