import type { Kind } from '@icebox/model'
import { oldestFirst } from '../page.ts'
import { Lookup } from './lookup.ts'
import { Ordered } from './ordered.ts'
import type { SandboxSummary, SummaryOf } from './summary.ts'

type Values<K extends Kind> = (summary: SummaryOf[K]) => readonly (string | undefined)[]
/** Undefined: it is not among them. */
type Time<K extends Kind> = (summary: SummaryOf[K]) => string | number | undefined

interface Indexes<K extends Kind> {
  lookups: Record<string, Values<K>>
  times: Record<string, Time<K>>
}

const isStillborn = ({ state, runningSeconds, runningSince }: SandboxSummary): boolean =>
  state === 'failed' && runningSeconds === 0 && runningSince === undefined

/** What the resources of one project are found by. */
const OF_PROJECT = {
  Sandbox: {
    lookups: {
      name: ({ name }) => [name],
      displayName: ({ displayName }) => [displayName],
      image: ({ image }) => [image],
      /** The snapshots that it cannot do without. */
      holds: ({ operationSnapshot, pausedIn }) => [operationSnapshot, pausedIn],
      restores: ({ operationSnapshot }) => [operationSnapshot],
      lastSnapshot: ({ lastSnapshot }) => [lastSnapshot],
      state: ({ state }) => [state],
      metadata: ({ pairs }) => pairs ?? [MANY_PAIRS],
    },
    times: {
      created: ({ createdAt }) => createdAt,
      /** Those that failed before they ever ran. */
      stillborn: (sandbox) => (isStillborn(sandbox) ? sandbox.since : undefined),
    },
  },
  Snapshot: {
    lookups: {
      name: ({ name }) => [name],
      label: ({ labels }) => labels,
      displayName: ({ displayName }) => [displayName],
      image: ({ image }) => [image],
      parent: ({ parent }) => [parent],
      template: ({ template, purpose }) => [purpose === 'user' ? template : undefined],
      state: ({ state }) => [state],
    },
    times: {
      created: ({ createdAt }) => createdAt,
      /** Those that were asked for. */
      taken: ({ createdAt, purpose }) => (purpose === 'user' ? createdAt : undefined),
      due: ({ due }) => due,
    },
  },
  Template: {
    lookups: {
      name: ({ name }) => [name],
      image: ({ image, reference }) => [image, reference],
      snapshot: ({ snapshot }) => [snapshot],
      hidden: ({ hidden, reference }) => [hidden ? reference : undefined],
    },
    times: {
      created: ({ createdAt }) => createdAt,
      built: ({ createdAt, hidden }) => (hidden ? undefined : createdAt),
    },
  },
  Image: {
    lookups: {
      name: ({ name }) => [name],
      called: ({ reference, digest }) => [reference, digest],
    },
    times: { created: ({ createdAt }) => createdAt },
  },
  ApiKey: { lookups: { name: ({ name }) => [name] }, times: { created: ({ createdAt }) => createdAt } },
  UsageRecord: {
    lookups: { name: ({ name }) => [name] },
    times: { created: ({ createdAt }) => createdAt, deleted: ({ deletedAt }) => deletedAt },
  },
} as const satisfies { [K in Kind]: Indexes<K> }

/** What those of all projects are found by. */
const OF_ALL = {
  Sandbox: {
    lookups: {
      name: ({ name }) => [name],
      /** The runs that it stands on or is about to. */
      execution: ({ execution, nextExecution }) => [execution, nextExecution],
      holds: ({ operationSnapshot, pausedIn }) => [operationSnapshot, pausedIn],
      restores: ({ operationSnapshot }) => [operationSnapshot],
      state: ({ state }) => [state],
      /** Why they are paused. */
      pausedFor: ({ state, reason }) => [state === 'paused' ? reason : undefined],
    },
    times: {
      created: ({ createdAt }) => createdAt,
      due: ({ due }) => due,
      stillborn: (sandbox) => (isStillborn(sandbox) ? sandbox.since : undefined),
      /** Those that failed after they had run. */
      broken: (sandbox) => (sandbox.state === 'failed' && !isStillborn(sandbox) ? sandbox.since : undefined),
    },
  },
  Snapshot: {
    lookups: {
      name: ({ name }) => [name],
      image: ({ image }) => [image],
      state: ({ state }) => [state],
      purpose: ({ purpose }) => [purpose],
      reason: ({ reason }) => [reason],
    },
    times: { due: ({ due }) => due },
  },
  Template: {
    lookups: {
      state: ({ state }) => [state],
      snapshot: ({ snapshot }) => [snapshot],
      /** By the name that every project can use it under. */
      public: (summary) => [summary.public ? summary.name : undefined],
    },
    times: {},
  },
  Image: { lookups: { digest: ({ digest }) => [digest], state: ({ state }) => [state] }, times: {} },
  ApiKey: { lookups: {}, times: {} },
  UsageRecord: { lookups: {}, times: { deleted: ({ deletedAt }) => deletedAt } },
} as const satisfies { [K in Kind]: Indexes<K> }

/** Equal names are of several projects. */
const byName = (a: { name: string; uid: string }, b: { name: string; uid: string }): number =>
  a.name < b.name ? -1 : a.name > b.name ? 1 : a.uid < b.uid ? -1 : a.uid > b.uid ? 1 : 0

const bytesOf = (summary: SummaryOf[Kind]): number => (summary.kind === 'Snapshot' ? summary.sizeBytes : 0)

/** Stands in `metadata` for those that have too many pairs. */
export const MANY_PAIRS = '*'

/** Of equal times the ids decide, so that no two are at the same place. */
const byTime =
  <K extends Kind>(time: Time<K>) =>
  (a: SummaryOf[K], b: SummaryOf[K]): number => {
    const [x, y] = [time(a) ?? 0, time(b) ?? 0]
    return x < y ? -1 : x > y ? 1 : a.uid < b.uid ? -1 : a.uid > b.uid ? 1 : 0
  }

/** Summaries of one kind, and what they are found by. Whoever has one may keep it: it does not change. */
export class Collection<K extends Kind, L extends string, T extends string> {
  readonly #lookups: Map<string, Lookup<SummaryOf[K]>>
  readonly #times: Map<string, { has: (summary: SummaryOf[K]) => boolean; ordered: Ordered<SummaryOf[K]> }>
  readonly #names: Ordered<SummaryOf[K]>
  #sizeBytes: number

  constructor(indexes: Indexes<K>, summaries: readonly SummaryOf[K][] = []) {
    this.#lookups = new Map(
      Object.entries(indexes.lookups).map(([name, values]) => [name, new Lookup<SummaryOf[K]>(values)]),
    )
    this.#times = new Map(
      Object.entries(indexes.times).map(([name, time]) => {
        const has = (summary: SummaryOf[K]) => time(summary) !== undefined
        // Lists are cut by creation and name, whatever else is created at the same time.
        const compare = CREATIONS.has(name) ? oldestFirst : byTime(time)
        return [name, { has, ordered: new Ordered<SummaryOf[K]>(compare, summaries.filter(has)) }]
      }),
    )
    for (const lookup of this.#lookups.values()) for (const summary of summaries) lookup.add(summary)
    this.#names = new Ordered(byName, summaries)
    this.#sizeBytes = summaries.reduce((sum, summary) => sum + bytesOf(summary), 0)
  }

  get size(): number {
    return this.#names.length
  }

  /** Of all of them together; 0 for kinds that have no bytes. */
  get sizeBytes(): number {
    return this.#sizeBytes
  }

  add(summary: SummaryOf[K]): void {
    this.#sizeBytes += bytesOf(summary)
    for (const lookup of this.#lookups.values()) lookup.add(summary)
    for (const { has, ordered } of this.#times.values()) if (has(summary)) ordered.add(summary)
    this.#names.add(summary)
  }

  remove(summary: SummaryOf[K]): void {
    this.#sizeBytes -= bytesOf(summary)
    for (const lookup of this.#lookups.values()) lookup.remove(summary)
    for (const { has, ordered } of this.#times.values()) if (has(summary)) ordered.remove(summary)
    this.#names.remove(summary)
  }

  where(lookup: L, value: string | undefined): Iterable<SummaryOf[K]> & { readonly size: number } {
    return this.#lookups.get(lookup)?.get(value) ?? new Set()
  }

  first(lookup: L, value: string | undefined): SummaryOf[K] | undefined {
    return this.#lookups.get(lookup)?.first(value)
  }

  /** Those whose name begins so, in the order of names; none of no beginning. */
  beginningWith(prefix: string): SummaryOf[K][] {
    if (prefix === '') return []
    const found: SummaryOf[K][] = []
    for (let at = this.#names.countWhile(({ name }) => name < prefix); ; at++) {
      const summary = this.#names.at(at)
      if (summary === undefined || !summary.name.startsWith(prefix)) return found
      found.push(summary)
    }
  }

  /** Earliest first. */
  by(time: T): Ordered<SummaryOf[K]> {
    return this.#times.get(time)?.ordered ?? new Ordered<SummaryOf[K]>(oldestFirst)
  }
}

const CREATIONS: ReadonlySet<string> = new Set(['created', 'taken', 'built'])

/** Of one project. */
export const ofProject = <K extends Kind>(kind: K, summaries: readonly SummaryOf[K][]): AnyCollection<K> =>
  // The compiler cannot see that the entry of kind K is for kind K.
  new Collection(OF_PROJECT[kind] as unknown as Indexes<K>, summaries)
/** Of all projects. */
export const ofAll = <K extends Kind>(kind: K, summaries: readonly SummaryOf[K][]): AnyCollection<K> =>
  new Collection(OF_ALL[kind] as unknown as Indexes<K>, summaries)

export type AnyCollection<K extends Kind> = Collection<K, string, string>
type Names<I> = Extract<keyof I, string>
export type OfProject<K extends Kind> = Collection<
  K,
  Names<(typeof OF_PROJECT)[K]['lookups']>,
  Names<(typeof OF_PROJECT)[K]['times']>
>
export type OfAll<K extends Kind> = Collection<
  K,
  Names<(typeof OF_ALL)[K]['lookups']>,
  Names<(typeof OF_ALL)[K]['times']>
>
