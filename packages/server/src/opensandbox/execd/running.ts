import type { ExecInfo, ExecSession, Guest } from '@icebox/model'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { ClientGone } from '../../client.ts'
import { DEADLINE } from '../../deadline.ts'
import { eventsOf, failed, sendEvents } from './events.ts'
import type { Execd } from './facade.ts'
import { ExecdError } from './failure.ts'

/** How a process was started through this façade: the beginning of its tag. */
const TAG = 'opensandbox:'
export const FOREGROUND = `${TAG}foreground`
export const BACKGROUND = `${TAG}background`
export const sessionTag = (session: string): string => `${TAG}session:${session}`

/** Milliseconds between asking a process to end and ending it. */
const GRACE = 3_000

/** The one of that id, which was started here. Throws the `NotFound` that execd's clients know. */
export async function commandInfo(guest: Guest, id: string, signal: AbortSignal): Promise<ExecInfo> {
  const info = (await guest.listExecs(signal)).find((exec) => exec.id === id && exec.tag?.startsWith(TAG) === true)
  if (info === undefined) throw new ExecdError('context', 'NotFound', `there is no command ${id}`)
  return info
}

/** Asks a process and its group to end, and ends it when it does not. Resolves when it has ended. */
export async function endCommand(guest: Guest, id: string, signal: AbortSignal): Promise<void> {
  const session = await guest.attach(id, 'none', signal)
  const timer = setTimeout(() => session.kill('SIGKILL', signal).catch(() => undefined), GRACE)
  try {
    await session.kill('SIGTERM', signal)
    for await (const event of session.events) if (event.type === 'exit') break
  } finally {
    clearTimeout(timer)
    session.detach()
  }
}

/**
 * Starts a process and answers with what it does. It ends with its client, but not with the server: who asks for its status
 * later gets it.
 */
export async function runInForeground(
  execd: Execd,
  request: FastifyRequest,
  reply: FastifyReply,
  start: (guest: Guest, signal: AbortSignal) => Promise<ExecSession>,
): Promise<void> {
  let exited = false
  const end = async (session: ExecSession): Promise<void> => {
    await session.kill('SIGKILL', AbortSignal.timeout(DEADLINE.read)).catch(() => undefined)
    session.detach()
  }
  const { started: session, signal } = await execd.streams.open(reply, DEADLINE.read, async (opened) => {
    const guest = await execd.guest(request, opened)
    // Not given up half-way: whether it was started would not be known.
    const begun = await start(guest, AbortSignal.timeout(DEADLINE.read))
    if (opened.aborted) await end(begun)
    return begun
  })
  try {
    const events = eventsOf(session, () => {
      exited = true
    })
    await sendEvents(reply, events, signal)
  } finally {
    if (!exited && signal.reason instanceof ClientGone) await end(session)
    session.detach()
  }
}

/** What cannot even be started, told as what was started and failed. */
export async function sendNotStarted(execd: Execd, reply: FastifyReply, why: string): Promise<void> {
  const { signal } = await execd.streams.open(reply, DEADLINE.read, async () => undefined)
  const events = async function* () {
    yield [{ type: 'init' as const, text: '' }, failed(why, why)]
  }
  await sendEvents(reply, events(), signal)
}
