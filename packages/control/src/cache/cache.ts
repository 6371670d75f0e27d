import { IceboxError, KINDS, type Kind, Pace, type ResourceOf } from '@icebox/model'
import { isNewer, type ResourceStore } from '@icebox/store'
import type { Log } from '../log.ts'
import { type AnyCollection, type OfAll, type OfProject, ofAll, ofProject } from './collection.ts'
import { type SummaryOf, summaryOf } from './summary.ts'

/** Resources that are read in one step: a few milliseconds of everybody's time. */
const PAGE = 250
const PAGE_DEADLINE_MS = 30_000
/** Deleted resources of a kind that are remembered: more than can be on their way anywhere. */
const DELETED_KEPT = 4096
/** How long after a watch has failed the kind is listed again. */
const RETRY_MS = 1_000

/** One change of one resource. */
export interface Change<K extends Kind = Kind> {
  readonly kind: K
  /** Absent: it is new. */
  readonly before: SummaryOf[K] | undefined
  /** Absent: it is gone. */
  readonly after: SummaryOf[K] | undefined
  /** As it is, or as it was last; absent when it went unseen. */
  readonly resource: ResourceOf[K] | undefined
}

/** The summaries of one kind. */
class Shelf<K extends Kind> {
  readonly kind: K
  #all: AnyCollection<K>
  readonly #projects = new Map<string, AnyCollection<K>>()
  /** What a project has that has none. */
  readonly #none: AnyCollection<K>
  /** By uid, those deleted last. A put that was on its way when its resource was deleted brings nothing back. */
  readonly #gone = new Set<string>()

  constructor(kind: K) {
    this.kind = kind
    this.#all = ofAll(kind, [])
    this.#none = ofProject(kind, [])
  }

  get all(): AnyCollection<K> {
    return this.#all
  }

  get projects(): Iterable<string> {
    return this.#projects.keys()
  }

  of(project: string): AnyCollection<K> {
    return this.#projects.get(project) ?? this.#none
  }

  find(project: string, name: string): SummaryOf[K] | undefined {
    return this.of(project).first('name', name)
  }

  isGone(uid: string): boolean {
    return this.#gone.has(uid)
  }

  forget(uid: string): void {
    this.#gone.add(uid)
    for (const oldest of this.#gone) {
      if (this.#gone.size <= DELETED_KEPT) break
      this.#gone.delete(oldest)
    }
  }

  /** All at once, which costs less than one after the other. Only while nothing is here. */
  fill(summaries: readonly SummaryOf[K][]): void {
    this.#all = ofAll(this.kind, summaries)
    for (const [project, own] of Map.groupBy(summaries, ({ namespace }) => namespace))
      this.#projects.set(project, ofProject(this.kind, own))
  }

  replace(before: SummaryOf[K] | undefined, after: SummaryOf[K] | undefined): void {
    if (before !== undefined) {
      this.#all.remove(before)
      const own = this.of(before.namespace)
      own.remove(before)
      if (own.size === 0) this.#projects.delete(before.namespace)
    }
    if (after !== undefined) {
      this.#all.add(after)
      const own = this.#projects.get(after.namespace) ?? ofProject(this.kind, [])
      own.add(after)
      this.#projects.set(after.namespace, own)
    }
  }

  *[Symbol.iterator](): Generator<SummaryOf[K]> {
    for (const project of this.#projects.values()) yield* project.by('created')
  }
}

/**
 * What the control plane knows of the store without asking it: a summary of every resource, found by what it is called, what it
 * stands on and when something is due. Fed by list and watch, whoever writes; writes of this process are here before they are
 * acknowledged.
 */
export class Cache {
  readonly #store: ResourceStore
  readonly #log: Log
  readonly #closing: AbortSignal
  readonly #shelves: { [K in Kind]: Shelf<K> } = {
    Image: new Shelf('Image'),
    Template: new Shelf('Template'),
    Snapshot: new Shelf('Snapshot'),
    Sandbox: new Shelf('Sandbox'),
    ApiKey: new Shelf('ApiKey'),
    UsageRecord: new Shelf('UsageRecord'),
  }
  readonly #listeners: ((change: Change) => void)[] = []
  readonly #following: Promise<void>[] = []

  private constructor(store: ResourceStore, log: Log, closing: AbortSignal) {
    this.#store = store
    this.#log = log
    this.#closing = closing
  }

  /** Reads everything once, page by page, and keeps no more of it than the summaries. */
  static async open(store: ResourceStore, log: Log, closing: AbortSignal): Promise<Cache> {
    const cache = new Cache(store, log, closing)
    for (const kind of Object.keys(KINDS) as Kind[]) await cache.#fill(kind)
    return cache
  }

  /** Those of all projects. */
  all<K extends Kind>(kind: K): OfAll<K> {
    return this.#shelf(kind).all
  }

  of<K extends Kind>(kind: K, project: string): OfProject<K> {
    return this.#shelf(kind).of(project)
  }

  /** Each of all projects, those of one after those of another. */
  each<K extends Kind>(kind: K): Iterable<SummaryOf[K]> {
    return this.#shelf(kind)
  }

  /** Projects that have any of the kind. */
  projectsOf(kind: Kind): string[] {
    return [...this.#shelves[kind].projects]
  }

  /** Told of each change once it is here, in the order of the changes of one resource. */
  onChange(listener: (change: Change) => void): void {
    this.#listeners.push(listener)
  }

  /** What this process has written. */
  put<K extends Kind>(kind: K, resource: ResourceOf[K]): void {
    const shelf = this.#shelf(kind)
    const { namespace, name, uid, resourceVersion } = resource.metadata
    const before = shelf.find(namespace, name)
    if (shelf.isGone(uid) || (before !== undefined && !isNewer(resourceVersion, before.version))) return
    const after = summaryOf(kind, resource)
    // One that was deleted and made anew unseen: its end comes first.
    const remade = before !== undefined && before.uid !== uid
    if (remade) this.#change(shelf, before, undefined, undefined)
    this.#change(shelf, remade ? undefined : before, after, resource)
  }

  /** What this process has deleted. */
  drop<K extends Kind>(kind: K, resource: ResourceOf[K]): void {
    const shelf = this.#shelf(kind)
    this.#end(shelf, resource)
  }

  /** Resolves when nothing reads the store any more. The signal given to `open` has to be aborted before. */
  async closed(): Promise<void> {
    await Promise.all(this.#following)
  }

  #shelf<K extends Kind>(kind: K): Shelf<K> {
    // The compiler cannot see that the shelf of kind K is for kind K.
    return this.#shelves[kind] as unknown as Shelf<K>
  }

  #end<K extends Kind>(shelf: Shelf<K>, resource: ResourceOf[K]): void {
    const { namespace, name, uid } = resource.metadata
    shelf.forget(uid)
    const before = shelf.find(namespace, name)
    if (before?.uid === uid) this.#change(shelf, before, undefined, resource)
  }

  #change<K extends Kind>(
    shelf: Shelf<K>,
    before: SummaryOf[K] | undefined,
    after: SummaryOf[K] | undefined,
    resource: ResourceOf[K] | undefined,
  ): void {
    shelf.replace(before, after)
    // A change of kind K is one of any kind.
    const change = { kind: shelf.kind, before, after, resource } as unknown as Change
    for (const listener of this.#listeners) listener(change)
  }

  async #fill<K extends Kind>(kind: K): Promise<void> {
    const summaries: SummaryOf[K][] = []
    const version = await this.#list(kind, (resource) => summaries.push(summaryOf(kind, resource)))
    const shelf = this.#shelf(kind)
    shelf.fill(summaries)
    this.#following.push(this.#follow(shelf, version))
  }

  /** Gives the version that a watch goes on from. */
  async #list<K extends Kind>(kind: K, each: (resource: ResourceOf[K]) => void): Promise<string> {
    const pace = new Pace()
    let next: string | undefined
    for (;;) {
      const signal = AbortSignal.any([this.#closing, AbortSignal.timeout(PAGE_DEADLINE_MS)])
      const options = next === undefined ? { limit: PAGE } : { limit: PAGE, continue: next }
      const page = await this.#store.list(kind, undefined, options, signal)
      for (const resource of page.items) each(resource)
      if (page.continue === undefined) return page.resourceVersion
      next = page.continue
      // The store answers at once: without this nobody else would have a turn.
      await pace.turn()
    }
  }

  async #follow<K extends Kind>(shelf: Shelf<K>, from: string): Promise<void> {
    let version = from
    while (!this.#closing.aborted) {
      try {
        for await (const event of this.#store.watch(shelf.kind, undefined, version, this.#closing)) {
          if (event.type === 'put') this.put(shelf.kind, event.resource)
          else this.#end(shelf, event.resource)
        }
      } catch (thrown) {
        if (this.#closing.aborted) return
        const error = IceboxError.from(thrown)
        if (error.code !== 'WatchExpired') {
          this.#log('error', 'cache.watch.failed', { kind: shelf.kind, error: error.message })
          await new Promise((resolve) => setTimeout(resolve, RETRY_MS).unref())
        }
        version = (await this.#relist(shelf).catch(() => undefined)) ?? version
      }
    }
  }

  /** After changes may have been missed: what is listed is taken over, what is not was deleted. */
  async #relist<K extends Kind>(shelf: Shelf<K>): Promise<string> {
    const listed = new Set<string>()
    const version = await this.#list(shelf.kind, (resource) => {
      listed.add(resource.metadata.uid)
      this.put(shelf.kind, resource)
    })
    // What this process has written since the list began is newer than the list.
    const missed = [...shelf].filter((summary) => !listed.has(summary.uid) && !isNewer(summary.version, version))
    for (const summary of missed) this.#change(shelf, summary, undefined, undefined)
    return version
  }
}
