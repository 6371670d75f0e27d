import { IceboxError } from '@icebox/model'
import { z } from 'zod'
import type { App } from '../../context.ts'
import { DEADLINE, within } from '../../deadline.ts'
import { optional } from '../../schemas.ts'
import { environment } from './environment.ts'
import type { Execd } from './facade.ts'
import { FOREGROUND, runInForeground } from './running.ts'
import { createSession, deleteSession, endRuns, listSessions, requireSession, runInSession } from './sessions.ts'
import { execShell } from './shell.ts'

const LANGUAGE = 'bash'
const Language = z.object({ language: z.string().min(1) })
const Id = z.object({ id: z.string().min(1) })

/** Throws for what needs a kernel. */
function requireBash(language: string): void {
  if (language === LANGUAGE || language === 'command') return
  throw new IceboxError(
    'NotImplemented',
    `code in ${language} needs a Jupyter kernel, and there is none: run it as a command, such as python3 -c`,
  )
}

/** Code as far as it is bash's: a context is a session. */
export async function codeRoutes(app: App, execd: Execd): Promise<void> {
  app.post(
    '/code/context',
    {
      schema: {
        body: optional(z.object({ language: z.string().min(1).default(LANGUAGE), cwd: z.string().nullish() })),
      },
    },
    async (request, reply) => {
      const { language, cwd } = request.body
      requireBash(language)
      return within(
        DEADLINE.read,
        async (signal) => ({
          id: await createSession(await execd.guest(request, signal), cwd ?? '', signal),
          language,
        }),
        reply,
      )
    },
  )

  app.get('/code/contexts', { schema: { querystring: Language } }, async (request, reply) => {
    if (request.query.language !== LANGUAGE) return []
    return within(
      DEADLINE.read,
      async (signal) =>
        (await listSessions(await execd.guest(request, signal), signal)).map((id) => ({ id, language: LANGUAGE })),
      reply,
    )
  })

  app.delete('/code/contexts', { schema: { querystring: Language } }, async (request, reply) => {
    await within(DEADLINE.read, async (signal) => {
      if (request.query.language !== LANGUAGE) return
      const guest = await execd.guest(request, signal)
      for (const session of await listSessions(guest, signal)) await deleteSession(guest, session, signal)
    })
    return reply.send()
  })

  app.get('/code/contexts/:id', { schema: { params: Id } }, async (request, reply) =>
    within(
      DEADLINE.read,
      async (signal) => {
        await requireSession(await execd.guest(request, signal), request.params.id, signal)
        return { id: request.params.id, language: LANGUAGE }
      },
      reply,
    ),
  )

  app.delete('/code/contexts/:id', { schema: { params: Id } }, async (request, reply) => {
    await within(DEADLINE.read, async (signal) =>
      deleteSession(await execd.guest(request, signal), request.params.id, signal),
    )
    return reply.send()
  })

  app.post(
    '/code',
    {
      schema: {
        body: z.object({
          code: z.string().min(1),
          context: z.object({ id: z.string().nullish(), language: z.string().nullish() }).nullish(),
        }),
      },
    },
    async (request, reply) => {
      const { code, context } = request.body
      requireBash(context?.language ?? LANGUAGE)
      const session = context?.id
      if (typeof session === 'string' && session !== '')
        return runInSession(execd, request, reply, { session, command: code })
      await runInForeground(execd, request, reply, async (guest, signal) =>
        execShell(
          guest,
          (shell) => [shell, '-c', code],
          { tag: FOREGROUND, overflow: 'block', env: await environment(guest, signal) },
          signal,
        ),
      )
    },
  )

  app.delete('/code', { schema: { querystring: Id } }, async (request, reply) => {
    const { id } = request.query
    await within(DEADLINE.read, async (signal) => {
      const guest = await execd.guest(request, signal)
      if (!(await endRuns(guest, id, signal))) await requireSession(guest, id, signal)
    })
    return reply.send()
  })
}
