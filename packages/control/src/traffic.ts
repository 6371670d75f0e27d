import { createHmac } from 'node:crypto'
import { IceboxError, type Sandbox } from '@icebox/model'
import type { Context } from './context.ts'
import type { SandboxTokens, Traffic } from './control.ts'
import { reach } from './sandboxes/reach.ts'

/** Sandboxes among which one is looked for by its token alone. */
const LOOKED_AT = 128

/**
 * Whose each sandbox is and what opens it, in memory: anybody who can connect may ask for any id, and a look at all that is written
 * down would be a dear answer. Kept from what is written: `note` has to be told of every write.
 */
export class Whereabouts {
  readonly #secret: Buffer
  readonly #places = new Map<string, { project: string; uid: string; tokens: SandboxTokens }>()

  /** Those of them that were made last. */
  readonly #newest = new Map<string, SandboxTokens>()

  /** What tokens are derived from, and must stay the same over restarts. */
  constructor(secret: Buffer) {
    this.#secret = secret
  }

  note({ metadata }: Pick<Sandbox, 'metadata'>, gone: boolean): void {
    const { name, namespace, uid } = metadata
    const known = this.#places.get(name)?.uid === uid
    if (gone && known) {
      this.#places.delete(name)
      this.#newest.delete(name)
    }
    if (gone || known) return
    const tokens = this.#derive(name, uid)
    this.#places.set(name, { project: namespace, uid, tokens })
    this.#newest.delete(name)
    this.#newest.set(name, tokens)
    for (const [oldest] of this.#newest) {
      if (this.#newest.size <= LOOKED_AT) break
      this.#newest.delete(oldest)
    }
  }

  projectOf(id: string): string | undefined {
    return this.#places.get(id)?.project
  }

  tokensOf({ metadata: { name, uid } }: Pick<Sandbox, 'metadata'>): SandboxTokens {
    const place = this.#places.get(name)
    return place?.uid === uid ? place.tokens : this.#derive(name, uid)
  }

  /** The id of one. Only those that were made last are looked at: who asks need not have a key, and all of them would be too many. */
  find(is: (tokens: SandboxTokens) => boolean): string | undefined {
    for (const [id, tokens] of this.#newest) if (is(tokens)) return id
    return undefined
  }

  /** The uid is part of them: no other sandbox ever has the same. */
  #derive(name: string, uid: string): SandboxTokens {
    const token = (purpose: string) =>
      createHmac('sha256', this.#secret)
        .update(JSON.stringify([purpose, name, uid]))
        .digest('hex')
    return { access: token('access'), traffic: token('traffic') }
  }
}

/** `context` is any project's. */
export function trafficService(context: Context, whereabouts: Whereabouts): Traffic {
  const lookUp = async (id: string): Promise<Sandbox | undefined> => {
    const project = whereabouts.projectOf(id)
    return project === undefined ? undefined : context.project(project).records.find('Sandbox', id)
  }
  const find = async (id: string): Promise<Sandbox> => {
    const sandbox = await lookUp(id)
    if (sandbox !== undefined) return sandbox
    throw new IceboxError('NotFound', `no sandbox has the id ${JSON.stringify(id)}`, { details: { sandbox: id } })
  }

  return {
    find,
    projectOf: (id) => whereabouts.projectOf(id),
    async findBy(is) {
      const id = whereabouts.find(is)
      return id === undefined ? undefined : lookUp(id)
    },
    async reach(id, signal) {
      const sandbox = await find(id)
      return reach(context.project(sandbox.metadata.namespace), sandbox, { wake: true }, signal)
    },
    tokens: (sandbox) => whereabouts.tokensOf(sandbox),
  }
}
