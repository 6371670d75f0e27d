import {
  ARTIFACT_TRANSITIONS,
  type ArtifactState,
  canMove,
  IceboxError,
  isError,
  type Kind,
  Pace,
  type ResourceOf,
  SANDBOX_TRANSITIONS,
  type Sandbox,
  type SandboxState,
  type SpecOf,
  type StatusOf,
} from '@icebox/model'
import type { ResourceStore } from '@icebox/store'
import type { Cache } from './cache/cache.ts'
import type { OfProject } from './cache/collection.ts'
import type { SummaryOf } from './cache/summary.ts'
import type { Slice } from './page.ts'
import { usageAfter } from './usage.ts'

/** Distance to a deadline that no single store call should need. */
const STORE_DEADLINE_MS = 30_000
/** How often a change is decided anew because somebody else wrote in between. */
const ATTEMPTS = 20
const deadline = () => AbortSignal.timeout(STORE_DEADLINE_MS)

const mayFollow = (state: { state: string }, next: { state: string }, kind: Kind): boolean =>
  kind === 'Sandbox'
    ? canMove<SandboxState>(SANDBOX_TRANSITIONS, state.state as SandboxState, next.state as SandboxState)
    : canMove<ArtifactState>(ARTIFACT_TRANSITIONS, state.state as ArtifactState, next.state as ArtifactState)

/** Characters of a message that is kept: a guest, an image or a registry may have written it. */
const MAX_MESSAGE = 2_000
/**
 * Reading and writing resources by the rules of this house: every change is decided on what was just read, obeys the
 * transition table, and is repeated when somebody else wrote in between.
 *
 * Writes take no caller's signal: an intent or a commit is never given up half-way because a client went away.
 */
export class Records {
  readonly #store: ResourceStore
  readonly #cache: Cache
  readonly namespace: string

  constructor(store: ResourceStore, cache: Cache, namespace: string) {
    this.#store = store
    this.#cache = cache
    this.namespace = namespace
  }

  /** Summaries of all of the kind, and what they are found by. */
  of<K extends Kind>(kind: K): OfProject<K> {
    return this.#cache.of(kind, this.namespace)
  }

  async create<K extends Kind>(
    kind: K,
    name: string,
    content: { spec: SpecOf<K>; status: StatusOf<K> },
  ): Promise<ResourceOf[K]> {
    const resource = await this.#store.create(kind, { namespace: this.namespace, name }, content, deadline())
    this.#cache.put(kind, resource)
    return resource
  }

  get<K extends Kind>(kind: K, name: string): Promise<ResourceOf[K]> {
    return this.#store.get(kind, { namespace: this.namespace, name }, deadline())
  }

  async find<K extends Kind>(kind: K, name: string): Promise<ResourceOf[K] | undefined> {
    try {
      return await this.get(kind, name)
    } catch (error) {
      if (isError(error, 'NotFound')) return undefined
      throw error
    }
  }

  /** What the summaries tell of, in their order, without what is gone meanwhile. */
  async read<K extends Kind>(kind: K, summaries: Iterable<SummaryOf[K]>): Promise<ResourceOf[K][]> {
    const found: ResourceOf[K][] = []
    const pace = new Pace()
    for (const { name } of [...summaries]) {
      const resource = await this.find(kind, name)
      if (resource !== undefined) found.push(resource)
      await pace.turn()
    }
    return found
  }

  async readSlice<K extends Kind>(kind: K, { items, ...slice }: Slice<SummaryOf[K]>): Promise<Slice<ResourceOf[K]>> {
    return { ...slice, items: await this.read(kind, items) }
  }

  /**
   * Writes the status that `decide` makes of the present one; undefined leaves it. `decide` may be called again on a newer
   * resource and may throw to refuse. `lastTransitionAt` is set here, and what a sandbox has used: `endedBy` is the time, ISO 8601,
   * after which it surely did not run, when that is earlier than now.
   */
  async setStatus<K extends Kind>(
    kind: K,
    name: string,
    decide: (resource: ResourceOf[K]) => Omit<StatusOf<K>, 'lastTransitionAt'> | undefined,
    endedBy?: string,
  ): Promise<ResourceOf[K]> {
    return this.#repeat(kind, name, (resource) => {
      const next = decide(resource)
      if (next === undefined) return undefined
      const from: { state: string; lastTransitionAt: string } = resource.status
      const to = next as { state: string }
      if (!mayFollow(from, to, kind)) {
        throw new IceboxError('InvalidState', `${kind} ${name} is ${from.state} and cannot become ${to.state}`)
      }
      const now = new Date().toISOString()
      const lastTransitionAt = from.state === to.state ? from.lastTransitionAt : now
      const used =
        resource.kind === 'Sandbox'
          ? { usage: usageAfter(resource.status.usage, to.state as SandboxState, endedBy ?? now) }
          : {}
      const message = messageOf(next)
      return this.#store.updateStatus(
        kind,
        resource,
        { ...next, ...message, ...used, lastTransitionAt } as StatusOf<K>,
        deadline(),
      )
    })
  }

  async setSpec<K extends Kind>(
    kind: K,
    name: string,
    decide: (resource: ResourceOf[K]) => SpecOf<K> | undefined,
  ): Promise<ResourceOf[K]> {
    return this.#repeat(kind, name, (resource) => {
      const spec = decide(resource)
      return spec === undefined ? undefined : this.#store.updateSpec(kind, resource, { spec }, deadline())
    })
  }

  /** Deleting what is gone succeeds. */
  async remove<K extends Kind>(kind: K, name: string): Promise<void> {
    try {
      const gone = await this.#decide(kind, name, async (resource) => {
        await this.#store.delete(kind, resource, deadline())
        return resource
      })
      this.#cache.drop(kind, gone)
    } catch (error) {
      if (!isError(error, 'NotFound')) throw error
    }
  }

  /** Writes what `write` makes of the present resource; undefined leaves it. */
  async #repeat<K extends Kind>(
    kind: K,
    name: string,
    write: (resource: ResourceOf[K]) => Promise<ResourceOf[K]> | undefined,
  ): Promise<ResourceOf[K]> {
    return this.#decide(kind, name, async (resource) => {
      const written = await write(resource)
      if (written === undefined) return resource
      this.#cache.put(kind, written)
      return written
    })
  }

  /** What is decided on the present resource, and anew when somebody else wrote in between. */
  async #decide<K extends Kind, R>(kind: K, name: string, decide: (resource: ResourceOf[K]) => Promise<R>): Promise<R> {
    for (let attempt = 0; ; attempt += 1) {
      const resource = await this.get(kind, name)
      try {
        return await decide(resource)
      } catch (error) {
        if (!isError(error, 'StaleWrite') || attempt >= ATTEMPTS) throw error
      }
    }
  }
}

/** The message of a status, no longer than it may be. */
function messageOf(status: { message?: string | undefined }): { message?: string } {
  const { message } = status
  return message === undefined || message.length <= MAX_MESSAGE ? {} : { message: `${message.slice(0, MAX_MESSAGE)}…` }
}

/** A status with the operation, reason and message of the last one left out. */
export function settledStatus(status: Sandbox['status']): Omit<Sandbox['status'], 'operation' | 'reason' | 'message'> {
  const { operation: _operation, reason: _reason, message: _message, ...rest } = status
  return rest
}

/** Finds by exact name, then among those that are called so, then by unique prefix of the name. */
export async function resolveRef<K extends 'Sandbox' | 'Snapshot' | 'Image' | 'ApiKey'>(
  records: Records,
  kind: K,
  ref: string,
  called: Iterable<SummaryOf[K]>,
): Promise<ResourceOf[K]> {
  const exact = await records.find(kind, ref)
  if (exact !== undefined) return exact
  const named = [...called]
  const matches = named.length > 0 ? named : records.of(kind).beginningWith(ref)
  const [match, another] = matches
  const noun = kind === 'ApiKey' ? 'key' : kind.toLowerCase()
  if (match === undefined)
    throw new IceboxError('NotFound', `no ${noun} has the id or name ${JSON.stringify(ref)}`, {
      details: { [noun]: ref },
      ...(kind === 'ApiKey' ? { remedy: 'List what exists (`icebox key list`) and use one of those ids.' } : {}),
    })
  if (another !== undefined) {
    throw new IceboxError(
      'Ambiguous',
      `${JSON.stringify(ref)} fits ${matches.length} ${noun}s: ${matches
        .slice(0, 5)
        .map(({ name }) => name)
        .join(', ')}`,
    )
  }
  return records.get(kind, match.name)
}
