import { randomUUID } from 'node:crypto'
import type { DatabaseSync } from 'node:sqlite'
import { isDeepStrictEqual } from 'node:util'
import { IceboxError, isError, type Kind, type ResourceOf, type SpecOf, type StatusOf } from '@icebox/model'
import { checkKey, checkMetadata, checkSpec, checkStatus } from '../check.ts'
import {
  type List,
  type ListOptions,
  MAX_RESOURCE_BYTES,
  type MetadataChange,
  type ResourceStore,
  type WatchEvent,
} from '../store.ts'
import { ChangeLog } from './change-log.ts'
import { fromSqlite, openDatabase } from './database.ts'
import { Durability } from './durability.ts'
import { decodePage, encodePage } from './page.ts'
import { assemble, type Content, contentOf, decode, Row } from './rows.ts'

type Key = { namespace: string; name: string }

const missing = (kind: Kind, name: string) =>
  new IceboxError('NotFound', `there is no ${kind} named ${JSON.stringify(name)}`, { details: { kind, name } })

function prepare(database: DatabaseSync) {
  return {
    begin: database.prepare('BEGIN IMMEDIATE'),
    commit: database.prepare('COMMIT'),
    rollback: database.prepare('ROLLBACK'),
    get: database.prepare(
      'SELECT version, metadata, spec, status FROM resources WHERE kind = ? AND namespace = ? AND name = ?',
    ),
    put: database.prepare(
      `INSERT INTO resources (kind, namespace, name, version, metadata, spec, status) VALUES (?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT DO UPDATE SET version = excluded.version, metadata = excluded.metadata, spec = excluded.spec,
         status = excluded.status`,
    ),
    remove: database.prepare('DELETE FROM resources WHERE kind = ? AND namespace = ? AND name = ?'),
    list: database.prepare(
      `SELECT version, metadata, spec, status FROM resources WHERE kind = ? AND namespace = ? AND name > ? ORDER BY name`,
    ),
    listAll: database.prepare(
      `SELECT version, metadata, spec, status FROM resources WHERE kind = ? AND (namespace, name) > (?, ?)
       ORDER BY namespace, name`,
    ),
  }
}

/** `ResourceStore` in one SQLite file. Every call is one synchronous step in memory; what waits is only the disk. */
export class SqliteStore implements ResourceStore {
  readonly #file: string
  readonly #database: DatabaseSync
  readonly #statements: ReturnType<typeof prepare>
  readonly #log: ChangeLog
  readonly #durability: Durability
  readonly #makeRoom: () => boolean
  #closed = false

  private constructor(
    file: string,
    database: DatabaseSync,
    log: ChangeLog,
    durability: Durability,
    makeRoom: () => boolean,
  ) {
    this.#file = file
    this.#database = database
    this.#statements = prepare(database)
    this.#log = log
    this.#durability = durability
    this.#makeRoom = makeRoom
  }

  /** `makeRoom` is asked when the disk is full: whether it is worth trying again. */
  static async open(file: string, makeRoom: () => boolean): Promise<SqliteStore> {
    const database = tryAgain(() => openDatabase(file), file, makeRoom)
    try {
      const log = new ChangeLog(database)
      return new SqliteStore(file, database, log, await Durability.open(`${file}-wal`, () => log.version), makeRoom)
    } catch (thrown) {
      database.close()
      throw fromSqlite(thrown, file)
    }
  }

  create<K extends Kind>(
    kind: K,
    key: Key,
    content: { spec: SpecOf<K>; status: StatusOf<K>; metadata?: MetadataChange },
    signal: AbortSignal,
  ): Promise<ResourceOf[K]> {
    return this.#do(signal, () => {
      checkKey(key)
      const { labels = {}, annotations = {}, finalizers = [] } = checkMetadata(content.metadata ?? {})
      const spec = checkSpec(kind, content.spec)
      const status = checkStatus(kind, content.status)
      if (this.#find(kind, key))
        throw new IceboxError('AlreadyExists', `a ${kind} named ${JSON.stringify(key.name)} exists already`, {
          details: { kind, name: key.name },
        })
      const metadata = {
        namespace: key.namespace,
        name: key.name,
        uid: randomUUID(),
        generation: 1,
        labels,
        annotations,
        createdAt: new Date().toISOString(),
        finalizers,
        ownerReferences: [],
      }
      return this.#put(kind, { metadata, spec, status })
    })
  }

  get<K extends Kind>(kind: K, key: Key, signal: AbortSignal): Promise<ResourceOf[K]> {
    return this.#do(signal, () => {
      const found = this.#find(kind, key)
      if (!found) throw missing(kind, key.name)
      return found
    })
  }

  /**
   * In the order of namespaces and names. While pages are read, a resource that exists all the time is in exactly one page; one that
   * comes or goes meanwhile may be in it or not. Each page is as of its own time, and `resourceVersion` is that of the
   * first page, so that a watch from it misses nothing. Tokens do not expire.
   */
  list<K extends Kind>(
    kind: K,
    namespace: string | undefined,
    options: ListOptions,
    signal: AbortSignal,
  ): Promise<List<K>> {
    return this.#do(signal, () => {
      const { labels = {}, limit = Number.POSITIVE_INFINITY } = options
      if (limit < 1) throw new IceboxError('InvalidArgument', `limit: ${limit} is less than 1`)
      const page =
        options.continue === undefined ? undefined : decodePage(options.continue, { kind, namespace, labels })
      const version = page?.version ?? this.#log.version
      const items: ResourceOf[K][] = []
      const after = page?.after ?? { namespace: '', name: '' }
      const rows =
        namespace === undefined
          ? this.#statements.listAll.iterate(kind, after.namespace, after.name)
          : this.#statements.list.iterate(kind, namespace, after.name)
      for (const row of rows) {
        const resource = decode(kind, Row.parse(row))
        if (Object.entries(labels).some(([key, value]) => resource.metadata.labels[key] !== value)) continue
        const last = items.at(-1)
        if (last && items.length >= limit) {
          const next = encodePage({
            kind,
            namespace,
            labels,
            version,
            after: { namespace: last.metadata.namespace, name: last.metadata.name },
          })
          return { items, resourceVersion: String(version), continue: next }
        }
        items.push(resource)
      }
      return { items, resourceVersion: String(version) }
    })
  }

  updateSpec<K extends Kind>(
    kind: K,
    resource: ResourceOf[K],
    change: { spec?: SpecOf<K>; metadata?: MetadataChange },
    signal: AbortSignal,
  ): Promise<ResourceOf[K]> {
    return this.#do(signal, () => {
      const metadataChange = checkMetadata(change.metadata ?? {})
      const current = this.#current(kind, resource)
      const spec: SpecOf<K> = change.spec === undefined ? current.spec : checkSpec(kind, change.spec)
      const { metadata: old, status } = contentOf<K>(current)
      const added = metadataChange.finalizers?.filter((finalizer) => !old.finalizers.includes(finalizer)) ?? []
      if (old.deletionRequestedAt !== undefined && added.length > 0)
        throw new IceboxError(
          'InvalidArgument',
          `finalizers: ${added.join(', ')} cannot be added, the ${kind} ${old.name} is being deleted`,
        )
      const specChanged = !isDeepStrictEqual(spec, current.spec)
      const metadata = { ...old, ...metadataChange, generation: old.generation + (specChanged ? 1 : 0) }
      if (!specChanged && isDeepStrictEqual(metadata, old)) return current
      const content = { metadata, spec, status }
      if (metadata.deletionRequestedAt !== undefined && metadata.finalizers.length === 0)
        return this.#remove(kind, content)
      return this.#put(kind, content)
    })
  }

  updateStatus<K extends Kind>(
    kind: K,
    resource: ResourceOf[K],
    status: StatusOf<K>,
    signal: AbortSignal,
  ): Promise<ResourceOf[K]> {
    return this.#do(signal, () => {
      const checked = checkStatus(kind, status)
      const current = this.#current(kind, resource)
      if (isDeepStrictEqual(checked, current.status)) return current
      return this.#put(kind, { ...contentOf<K>(current), status: checked })
    })
  }

  delete<K extends Kind>(kind: K, resource: ResourceOf[K], signal: AbortSignal): Promise<void> {
    return this.#do(signal, () => {
      const content = contentOf<K>(this.#same(kind, resource))
      const { metadata } = content
      if (metadata.finalizers.length === 0) this.#remove(kind, content)
      else if (metadata.deletionRequestedAt === undefined)
        this.#put(kind, { ...content, metadata: { ...metadata, deletionRequestedAt: new Date().toISOString() } })
    })
  }

  async *watch<K extends Kind>(
    kind: K,
    namespace: string | undefined,
    from: string,
    signal: AbortSignal,
  ): AsyncGenerator<WatchEvent<K>, void, void> {
    let cursor = this.#log.parseVersion(from)
    while (!signal.aborted) {
      this.#assertOpen()
      const batch = this.#log.read(kind, namespace, cursor)
      await this.#durability.upTo(batch.to)
      for (const event of batch.events) {
        if (signal.aborted) return
        yield event
      }
      cursor = batch.to
      await this.#log.changed(kind, cursor, signal)
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#log.wake()
    await this.#durability.close()
    this.#database.close()
  }

  #assertOpen(): void {
    if (this.#closed)
      throw new IceboxError('Unavailable', 'the store was closed', { remedy: 'Start the server again.' })
  }

  /**
   * Runs one step, then waits until everything it has written or seen is durable: nobody is told what a loss of power
   * could take back, not even readers.
   */
  async #do<T>(signal: AbortSignal, step: () => T): Promise<T> {
    if (signal.aborted) throw IceboxError.from(signal.reason)
    this.#assertOpen()
    let result: T
    try {
      result = step()
    } catch (thrown) {
      await this.#durability.upTo(this.#log.version)
      throw fromSqlite(thrown, this.#file)
    }
    await this.#durability.upTo(this.#log.version)
    return result
  }

  #find<K extends Kind>(kind: K, key: Key): ResourceOf[K] | undefined {
    const row = this.#statements.get.get(kind, key.namespace, key.name)
    return row && decode(kind, Row.parse(row))
  }

  /** The stored resource with the uid of the given one. */
  #same<K extends Kind>(kind: K, resource: ResourceOf[K]): ResourceOf[K] {
    const current = this.#find(kind, resource.metadata)
    if (!current) throw missing(kind, resource.metadata.name)
    if (current.metadata.uid !== resource.metadata.uid)
      throw new IceboxError('StaleWrite', `the ${kind} ${resource.metadata.name} was deleted and created again`)
    return current
  }

  /** The stored resource, provided that the given one is its latest version. */
  #current<K extends Kind>(kind: K, resource: ResourceOf[K]): ResourceOf[K] {
    const current = this.#same(kind, resource)
    if (current.metadata.resourceVersion !== resource.metadata.resourceVersion)
      throw new IceboxError('StaleWrite', `the ${kind} ${resource.metadata.name} has changed since it was read`)
    return current
  }

  #put<K extends Kind>(kind: K, content: Content<K>): ResourceOf[K] {
    const { namespace, name } = content.metadata
    const json = [content.metadata, content.spec, content.status].map((part) => JSON.stringify(part))
    const bytes = json.reduce((sum, part) => sum + Buffer.byteLength(part), 0)
    if (bytes > MAX_RESOURCE_BYTES)
      throw new IceboxError(
        'TooLarge',
        `the ${kind} ${name} would be ${bytes} bytes large, and may be ${MAX_RESOURCE_BYTES}; nothing was changed`,
      )
    const version = this.#write(kind, (next) => {
      this.#statements.put.run(kind, namespace, name, next, ...json)
      this.#log.append(next, kind, namespace, name)
    })
    return assemble(kind, version, content)
  }

  #remove<K extends Kind>(kind: K, content: Content<K>): ResourceOf[K] {
    const { namespace, name } = content.metadata
    const version = this.#write(kind, (next) => {
      this.#statements.remove.run(kind, namespace, name)
      this.#log.append(next, kind, namespace, name, content)
    })
    return assemble(kind, version, content)
  }

  #write(kind: Kind, statements: (version: number) => void): number {
    return tryAgain(() => this.#attempt(kind, statements), this.#file, this.#makeRoom)
  }

  #attempt(kind: Kind, statements: (version: number) => void): number {
    const version = this.#log.version + 1
    this.#statements.begin.run()
    try {
      statements(version)
      this.#statements.commit.run()
    } catch (thrown) {
      // A full disk may have rolled it back already.
      if (this.#database.isTransaction) this.#statements.rollback.run()
      throw thrown
    }
    this.#log.committed(version, kind)
    return version
  }
}

/** Runs a step that leaves nothing when it throws: a second time when the disk was full and there is room meanwhile. */
function tryAgain<T>(step: () => T, file: string, makeRoom: () => boolean): T {
  try {
    return step()
  } catch (thrown) {
    if (!isError(fromSqlite(thrown, file), 'NoSpace') || !makeRoom()) throw thrown
    return step()
  }
}
