import { createHmac } from 'node:crypto'
import { IceboxError, type Sandbox } from '@icebox/model'
import type { Context } from './context.ts'
import type { SandboxTokens, Traffic } from './control.ts'
import { reach } from './sandboxes/reach.ts'

/** `context` is any project's; `secret` is what the tokens are derived from, and must stay the same over restarts. */
export function trafficService(context: Context, secret: Buffer): Traffic {
  /** Projects of sandboxes seen: an id is never of another one. */
  const projects = new Map<string, string>()

  const find = async (id: string): Promise<Sandbox> => {
    const known = projects.get(id)
    if (known !== undefined) {
      const sandbox = await context.project(known).records.find('Sandbox', id)
      if (sandbox !== undefined) return sandbox
      projects.delete(id)
    }
    const sandbox = (await context.records.listEverywhere('Sandbox')).find(({ metadata }) => metadata.name === id)
    if (sandbox === undefined)
      throw new IceboxError('NotFound', `no sandbox has the id ${JSON.stringify(id)}`, { details: { sandbox: id } })
    projects.set(id, sandbox.metadata.namespace)
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
