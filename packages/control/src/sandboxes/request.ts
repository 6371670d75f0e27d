import { createHash } from 'node:crypto'
import { IceboxError, type Sandbox, type SandboxId } from '@icebox/model'
import type { Context } from '../context.ts'
import type { Accepted } from '../control.ts'

export type Request = NonNullable<Sandbox['spec']['request']>

/** The same for equal values, in whatever order their keys stand. */
function hashOf(value: unknown): string {
  const sorted = JSON.stringify(value, (_, part: unknown) =>
    typeof part === 'object' && part !== null && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1)))
      : part,
  )
  return createHash('sha256').update(sorted).digest('hex')
}

/**
 * Creates that have a key. The id of the sandbox is derived from it, so that what is written decides, also after a crash, whether
 * a request was made before.
 */
export class Requests {
  readonly #context: Context
  /** Those not yet accepted, by id. */
  readonly #arriving = new Map<string, Promise<unknown>>()

  constructor(context: Context) {
    this.#context = context
  }

  /**
   * Begins the create, or joins the one that was made with this key. `Conflict`: the key stands for another request, or its
   * sandbox is gone.
   */
  async once(
    key: string,
    body: unknown,
    begin: (id: SandboxId, request: Request) => Promise<Accepted<Sandbox>>,
  ): Promise<Accepted<Sandbox>> {
    const { records, sandboxIdOf } = this.#context
    const id = sandboxIdOf(records.namespace, key)
    for (let other = this.#arriving.get(id); other !== undefined; other = this.#arriving.get(id))
      await other.catch(() => undefined)
    const mine = this.#begin(id, { key, hash: hashOf(body) }, begin)
    this.#arriving.set(id, mine)
    try {
      return await mine
    } finally {
      this.#arriving.delete(id)
    }
  }

  async #begin(
    id: SandboxId,
    request: Request,
    begin: (id: SandboxId, request: Request) => Promise<Accepted<Sandbox>>,
  ): Promise<Accepted<Sandbox>> {
    const { records } = this.#context
    const present = await records.find('Sandbox', id)
    if (present !== undefined) return this.#join(present, request)
    // Looked for after the sandbox, since it is written before that goes.
    const gone = await records.find('UsageRecord', id)
    if (gone === undefined) return begin(id, request)
    throw used(request, `made sandbox ${id}, which was deleted at ${gone.spec.deletedAt}`)
  }

  async #join(present: Sandbox, request: Request): Promise<Accepted<Sandbox>> {
    const { operations } = this.#context
    const { name } = present.metadata
    const { state } = present.status
    if (present.spec.request?.hash !== request.hash) throw used(request, `made sandbox ${name} of another request`)
    if (state === 'deleting') throw used(request, `made sandbox ${name}, which is being deleted`)
    const settled = { resource: present, settled: Promise.resolve(present) }
    if (operations.verb(name) !== 'create') return settled
    return operations.exclusive(name, 'create', async () => settled)
  }
}

const used = ({ key }: Request, why: string): IceboxError =>
  new IceboxError('Conflict', `the idempotency key ${JSON.stringify(key)} ${why}`, {
    remedy: 'Send a request that is to make another sandbox with a key of its own.',
  })
