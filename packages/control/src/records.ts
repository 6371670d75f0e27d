import {
  ARTIFACT_TRANSITIONS,
  type ArtifactState,
  canMove,
  IceboxError,
  isError,
  type Kind,
  type ResourceOf,
  SANDBOX_TRANSITIONS,
  type Sandbox,
  type SandboxState,
  type SpecOf,
  type StatusOf,
} from '@icebox/model'
import type { ResourceStore } from '@icebox/store'
import { usageAfter } from './usage.ts'

/** Distance to a deadline that no single store call should need. */
const STORE_DEADLINE_MS = 30_000
const deadline = () => AbortSignal.timeout(STORE_DEADLINE_MS)

const mayFollow = (state: { state: string }, next: { state: string }, kind: Kind): boolean =>
  kind === 'Sandbox'
    ? canMove<SandboxState>(SANDBOX_TRANSITIONS, state.state as SandboxState, next.state as SandboxState)
    : canMove<ArtifactState>(ARTIFACT_TRANSITIONS, state.state as ArtifactState, next.state as ArtifactState)

/** `to` is absent unless the resource is gone: then its state is what it was last. */
export type OnTransition = (resource: ResourceOf[Kind], from: string | undefined, to?: 'deleted') => void

/**
 * Reading and writing resources by the rules of this house: every change is decided on what was just read, obeys the
 * transition table, and is repeated when somebody else wrote in between.
 *
 * Writes take no caller's signal: an intent or a commit is never given up half-way because a client went away.
 */
export class Records {
  readonly #store: ResourceStore
  readonly #onTransition: OnTransition
  readonly namespace: string

  /** `onTransition` is told of each change of a state once it is written. */
  constructor(store: ResourceStore, namespace: string, onTransition: OnTransition) {
    this.#store = store
    this.#onTransition = onTransition
    this.namespace = namespace
  }

  async create<K extends Kind>(
    kind: K,
    name: string,
    content: { spec: SpecOf<K>; status: StatusOf<K> },
  ): Promise<ResourceOf[K]> {
    const resource = await this.#store.create(kind, { namespace: this.namespace, name }, content, deadline())
    this.#onTransition(resource, undefined)
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

  async list<K extends Kind>(kind: K): Promise<ResourceOf[K][]> {
    return (await this.#store.list(kind, this.namespace, {}, deadline())).items
  }

  /** Of all namespaces. */
  async listEverywhere<K extends Kind>(kind: K): Promise<ResourceOf[K][]> {
    return (await this.#store.list(kind, undefined, {}, deadline())).items
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
    let before: string = ''
    const written = await this.#repeat(kind, name, (resource) => {
      before = resource.status.state
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
      return this.#store.updateStatus(kind, resource, { ...next, ...used, lastTransitionAt } as StatusOf<K>, deadline())
    })
    if (written.status.state !== before) this.#onTransition(written, before)
    return written
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
      const gone = await this.#repeat(kind, name, async (resource) => {
        await this.#store.delete(kind, resource, deadline())
        return resource
      })
      this.#onTransition(gone, gone.status.state, 'deleted')
    } catch (error) {
      if (!isError(error, 'NotFound')) throw error
    }
  }

  async #repeat<K extends Kind>(
    kind: K,
    name: string,
    write: (resource: ResourceOf[K]) => Promise<ResourceOf[K]> | undefined,
  ): Promise<ResourceOf[K]> {
    for (let attempt = 0; ; attempt += 1) {
      const resource = await this.get(kind, name)
      try {
        return (await write(resource)) ?? resource
      } catch (error) {
        if (!isError(error, 'StaleWrite') || attempt >= 20) throw error
      }
    }
  }
}

/** A status with the operation, reason and message of the last one left out. */
export function settledStatus(status: Sandbox['status']): Omit<Sandbox['status'], 'operation' | 'reason' | 'message'> {
  const { operation: _operation, reason: _reason, message: _message, ...rest } = status
  return rest
}

/** Finds by exact name, then by display name, then by unique prefix of the name. */
export async function resolveRef<K extends 'Sandbox' | 'Snapshot' | 'Image' | 'ApiKey'>(
  records: Records,
  kind: K,
  ref: string,
  otherNames: (resource: ResourceOf[K]) => (string | undefined)[],
): Promise<ResourceOf[K]> {
  const exact = await records.find(kind, ref)
  if (exact !== undefined) return exact
  const all = await records.list(kind)
  const named = all.filter((resource) => otherNames(resource).includes(ref))
  const matches =
    named.length > 0 ? named : all.filter((resource) => ref !== '' && resource.metadata.name.startsWith(ref))
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
        .map((each) => each.metadata.name)
        .join(', ')}`,
    )
  }
  return match
}
