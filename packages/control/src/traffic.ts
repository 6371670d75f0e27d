import { createHmac } from 'node:crypto'
import { IceboxError, type Sandbox } from '@icebox/model'
import type { Context } from './context.ts'
import type { SandboxTokens, Traffic } from './control.ts'
import { reach } from './sandboxes/reach.ts'

/**
 * `context` is any project's; `secret` is what the tokens are derived from, and must stay the same over restarts. `projectOf` knows
 * every sandbox, so that guessing ids costs nothing.
 */
export function trafficService(
  context: Context,
  secret: Buffer,
  projectOf: (id: string) => string | undefined,
): Traffic {
  const find = async (id: string): Promise<Sandbox> => {
    const project = projectOf(id)
    const sandbox = project === undefined ? undefined : await context.project(project).records.find('Sandbox', id)
    if (sandbox === undefined)
      throw new IceboxError('NotFound', `no sandbox has the id ${JSON.stringify(id)}`, { details: { sandbox: id } })
    return sandbox
  }
  /** The uid is part of it: no other sandbox ever has the same. */
  const token = (purpose: string, { metadata }: Sandbox): string =>
    createHmac('sha256', secret)
      .update(JSON.stringify([purpose, metadata.name, metadata.uid]))
      .digest('hex')

  const tokens = (sandbox: Sandbox): SandboxTokens => ({
    access: token('access', sandbox),
    traffic: token('traffic', sandbox),
  })

  return {
    find,
    async findBy(is, signal) {
      const sandboxes = await context.records.listEverywhere('Sandbox')
      signal.throwIfAborted()
      return sandboxes.find((sandbox) => is(tokens(sandbox)))
    },
    async reach(id, signal) {
      const sandbox = await find(id)
      return reach(context.project(sandbox.metadata.namespace), sandbox, { wake: true }, signal)
    },
    tokens,
  }
}
