import type { Accepted, Project } from '@icebox/control'
import { IceboxError, isError, isId, type Sandbox } from '@icebox/model'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { authorityOf, hostName, isLoopback } from '../access.ts'
import type { Context } from '../context.ts'
import { DEADLINE, within } from '../deadline.ts'
import type { E2bSandbox } from './schemas.ts'
import { e2bSandbox, stateOf, type ToldTokens } from './wire.ts'

/** What all of E2B's routes about sandboxes share. */

const notFound = (id: string): IceboxError =>
  new IceboxError('NotFound', `sandbox '${id}' not found`, { details: { sandbox: id } })

/** The sandbox of this very id, in whatever state: E2B knows no names and no prefixes. Throws `NotFound`. */
export async function exactSandbox(project: Project, id: string, signal: AbortSignal): Promise<Sandbox> {
  try {
    const sandbox = isId(id) ? await project.sandboxes.get(id, signal) : undefined
    if (sandbox?.metadata.name === id) return sandbox
  } catch (error) {
    if (!isError(error, 'NotFound', 'Ambiguous')) throw error
  }
  throw notFound(id)
}

/** The same, of those that E2B shows. */
export async function presentSandbox(project: Project, id: string, signal: AbortSignal): Promise<Sandbox> {
  const sandbox = await exactSandbox(project, id, signal)
  if (stateOf(sandbox) === undefined) throw notFound(id)
  return sandbox
}

/** Waits until an accepted operation has ended, which it does whatever becomes of the wait. */
export async function settled<R>(
  { closing }: Context,
  accept: (signal: AbortSignal) => Promise<Accepted<R>>,
  seen: (resource: R) => void = () => undefined,
): Promise<R> {
  const accepted = await within(DEADLINE.accept, accept)
  seen(accepted.resource)
  const { promise: closed, reject } = Promise.withResolvers<never>()
  const leave = () => reject(new IceboxError('Unavailable', 'the server is shutting down; the operation goes on'))
  closing.addEventListener('abort', leave, { once: true })
  try {
    return await within(DEADLINE.work, () => Promise.race([accepted.settled, closed]))
  } finally {
    closing.removeEventListener('abort', leave)
  }
}

export function toldTokens({ control, isSecure }: Context, sandbox: Sandbox): ToldTokens {
  const { access, traffic } = control.traffic.tokens(sandbox)
  return { access: isSecure(sandbox) ? access : undefined, traffic }
}

/** With the tokens that open it. */
export const openedSandbox = (context: Context, request: FastifyRequest, sandbox: Sandbox): E2bSandbox =>
  e2bSandbox(sandbox, toldTokens(context, sandbox), domainOf(context, request))

/**
 * Under which `<port>-<id>.<domain>` reaches ports: the configured domain; else, for who calls from this machine, `localhost`
 * with the port of the server. Null: only the way by headers and by path is there.
 */
export function domainOf({ domains: [domain] }: Context, { raw, socket }: FastifyRequest): string | null {
  if (domain !== undefined) return domain
  return isLoopback(hostName(authorityOf(raw) ?? '')) ? `localhost:${socket.localPort}` : null
}

/** Answers with the next token of a list in parts, when something follows. */
export function sendNext(reply: FastifyReply, next: string | undefined): void {
  if (next !== undefined) reply.header('x-next-token', next)
}
