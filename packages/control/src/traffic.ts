import { createHmac } from 'node:crypto'
import { IceboxError, type Sandbox } from '@icebox/model'
import type { Context } from './context.ts'
import type { SandboxTokens, Traffic } from './control.ts'
import { reach } from './sandboxes/reach.ts'

/** What opens each sandbox, derived from a secret: written nowhere, and the same after a restart. */
export class Tokens {
  readonly #secret: Buffer

  constructor(secret: Buffer) {
    this.#secret = secret
  }

  /** The uid is part of them: no other sandbox ever has the same. */
  of({ name, uid }: { name: string; uid: string }): SandboxTokens {
    const token = (purpose: string) =>
      createHmac('sha256', this.#secret)
        .update(JSON.stringify([purpose, name, uid]))
        .digest('hex')
    return { access: token('access'), traffic: token('traffic') }
  }
}

/** `context` is any project's. */
export function trafficService(context: Context, tokens: Tokens): Traffic {
  const lookUp = async (id: string): Promise<Sandbox | undefined> => {
    const project = context.cache.all('Sandbox').first('name', id)?.namespace
    return project === undefined ? undefined : context.project(project).records.find('Sandbox', id)
  }
  const find = async (id: string): Promise<Sandbox> => {
    const sandbox = await lookUp(id)
    if (sandbox !== undefined) return sandbox
    throw new IceboxError('NotFound', `no sandbox has the id ${JSON.stringify(id)}`, { details: { sandbox: id } })
  }

  return {
    find,
    async findBy(is) {
      for (const sandbox of context.cache.each('Sandbox')) if (is(tokens.of(sandbox))) return lookUp(sandbox.name)
      return undefined
    },
    async reach(id, signal) {
      const sandbox = await find(id)
      return reach(context.project(sandbox.metadata.namespace), sandbox, { wake: true }, signal)
    },
    tokens: ({ metadata }) => tokens.of(metadata),
  }
}
