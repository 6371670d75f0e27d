import { createHmac } from 'node:crypto'
import { IceboxError, type Sandbox } from '@icebox/model'
import type { Context } from './context.ts'
import type { SandboxTokens, Traffic } from './control.ts'
import { reach } from './sandboxes/reach.ts'

/** Sandboxes among which one is looked for by its token alone: those that were made last. */
const LOOKED_AT = 128
/** Sandboxes whose tokens are kept in memory. */
const KEPT = 4096

/** What opens each sandbox, derived from a secret: written nowhere, and the same after a restart. */
export class Tokens {
  readonly #secret: Buffer

  /** By uid, those last asked for. */
  readonly #kept = new Map<string, SandboxTokens>()

  constructor(secret: Buffer) {
    this.#secret = secret
  }

  /** The uid is part of them: no other sandbox ever has the same. */
  of({ name, uid }: { name: string; uid: string }): SandboxTokens {
    const tokens = this.#kept.get(uid) ?? this.#derive(name, uid)
    this.#kept.delete(uid)
    this.#kept.set(uid, tokens)
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size <= KEPT) break
      this.#kept.delete(oldest)
    }
    return tokens
  }

  #derive(name: string, uid: string): SandboxTokens {
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
    projectOf: (id) => context.cache.all('Sandbox').first('name', id)?.namespace,
    async findBy(is) {
      // Who asks need not have a key, and all of them would be too many.
      const all = context.cache.all('Sandbox').by('created')
      for (let back = 1; back <= Math.min(LOOKED_AT, all.length); back++) {
        const sandbox = all.at(-back)
        if (sandbox !== undefined && is(tokens.of(sandbox))) return lookUp(sandbox.name)
      }
      return undefined
    },
    async reach(id, signal) {
      const sandbox = await find(id)
      return reach(context.project(sandbox.metadata.namespace), sandbox, { wake: true }, signal)
    },
    tokens: ({ metadata }) => tokens.of(metadata),
  }
}
