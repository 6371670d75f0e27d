import type { DatabaseSync } from 'node:sqlite'
import { IceboxError, type Kind } from '@icebox/model'
import { z } from 'zod'
import type { WatchEvent } from '../store.ts'
import { type Content, decode, Row } from './rows.ts'

/** Changes kept for watchers, of all kinds together. */
export const LOG_LIMIT = 4096
/** Changes read for one watcher in one step. */
const BATCH = 256

const Change = Row.extend({ deleted: z.int() })
const Bounds = z.object({ oldest: z.int().nullable(), newest: z.int().nullable() })
const OfKind = z.object({ kind: z.string(), version: z.int() })

function prepare(database: DatabaseSync) {
  return {
    // Two lookups: with both in one SELECT, SQLite reads the whole table.
    bounds: database.prepare(
      'SELECT (SELECT min(version) FROM changes) AS oldest, (SELECT max(version) FROM changes) AS newest',
    ),
    append: database.prepare(
      'INSERT INTO changes (version, kind, namespace, name, metadata, spec, status) VALUES (?, ?, ?, ?, ?, ?, ?)',
    ),
    trim: database.prepare('DELETE FROM changes WHERE version <= ? RETURNING kind, version'),
    newest: database.prepare('SELECT kind, max(version) AS version FROM changes GROUP BY kind'),
    read: database.prepare(changesWhere('c.kind = ? AND c.namespace = ? AND c.version > ?')),
    // The log is short: without a namespace the other kinds in it are passed over.
    readAll: database.prepare(changesWhere('+c.kind = ? AND c.version > ?')),
  }
}

/** A put that a later change of the same resource has overtaken is left out: the later one is in the log too. */
const changesWhere = (condition: string): string =>
  `SELECT c.version AS version, c.metadata IS NOT NULL AS deleted, coalesce(c.metadata, r.metadata) AS metadata,
     coalesce(c.spec, r.spec) AS spec, coalesce(c.status, r.status) AS status
   FROM changes c LEFT JOIN resources r
     ON r.kind = c.kind AND r.namespace = c.namespace AND r.name = c.name AND r.version = c.version
   WHERE ${condition} AND (c.metadata IS NOT NULL OR r.name IS NOT NULL)
   ORDER BY c.version LIMIT ${BATCH}`

/**
 * The newest changes of the database, numbered without gaps; the number of the newest is the version of the store.
 * Bounded, so that watchers cost nothing: one that falls further behind has to list again.
 */
export class ChangeLog {
  readonly #statements: ReturnType<typeof prepare>
  readonly #waiting = new Map<() => void, string>()
  /** By kind: its newest change, and the newest one that is not kept any more. */
  readonly #newest: Map<string, number>
  readonly #forgotten = new Map<string, number>()
  /** Of changes that were forgotten before this log was opened. */
  readonly #forgottenBefore: number
  #version: number

  constructor(database: DatabaseSync) {
    this.#statements = prepare(database)
    const { oldest, newest } = this.#bounds()
    this.#version = newest
    this.#forgottenBefore = oldest - 1
    const ofKinds = this.#statements.newest.all().map((row) => OfKind.parse(row))
    this.#newest = new Map(ofKinds.map(({ kind, version }) => [kind, version]))
  }

  get version(): number {
    return this.#version
  }

  #bounds(): { oldest: number; newest: number } {
    const { oldest, newest } = Bounds.parse(this.#statements.bounds.get())
    return { oldest: oldest ?? 1, newest: newest ?? 0 }
  }

  parseVersion(from: string): number {
    if (!/^(0|[1-9][0-9]{0,14})$/.test(from))
      throw new IceboxError('InvalidArgument', `from: ${JSON.stringify(from)} is not a resourceVersion`)
    return Number(from)
  }

  /** Within the transaction that makes the change; `deleted` is the last content of what is gone. */
  append<K extends Kind>(version: number, kind: K, namespace: string, name: string, deleted?: Content<K>): void {
    const content = deleted ? [deleted.metadata, deleted.spec, deleted.status] : []
    const [metadata = null, spec = null, status = null] = content.map((part) => JSON.stringify(part))
    this.#statements.append.run(version, kind, namespace, name, metadata, spec, status)
    for (const row of this.#statements.trim.all(version - LOG_LIMIT)) {
      const { kind: of, version: last } = OfKind.parse(row)
      this.#forgotten.set(of, Math.max(last, this.#forgotten.get(of) ?? 0))
    }
  }

  /** After that transaction. */
  committed(version: number, kind: Kind): void {
    this.#version = version
    this.#newest.set(kind, version)
    for (const [resolve, awaited] of this.#waiting) if (awaited === kind) resolve()
  }

  /** Wakes all who wait, whatever has changed. */
  wake(): void {
    for (const resolve of this.#waiting.keys()) resolve()
  }

  /** The changes after `cursor`, and the version up to which these are all. Throws WatchExpired. */
  read<K extends Kind>(
    kind: K,
    namespace: string | undefined,
    cursor: number,
  ): { events: WatchEvent<K>[]; to: number } {
    if (cursor < (this.#forgotten.get(kind) ?? this.#forgottenBefore) || cursor > this.#version)
      throw new IceboxError('WatchExpired', `the changes after version ${cursor} are no longer kept`)
    if (!this.#hasAfter(kind, cursor)) return { events: [], to: this.#version }
    const rows =
      namespace === undefined
        ? this.#statements.readAll.all(kind, cursor)
        : this.#statements.read.all(kind, namespace, cursor)
    const changes = rows.map((row) => Change.parse(row))
    const events = changes.map(
      (change): WatchEvent<K> => ({ type: change.deleted ? 'delete' : 'put', resource: decode(kind, change) }),
    )
    const last = changes.at(-1)
    return { events, to: last && changes.length === BATCH ? last.version : this.#version }
  }

  #hasAfter(kind: Kind, cursor: number): boolean {
    return (this.#newest.get(kind) ?? 0) > cursor
  }

  /** Resolves when there is a change of the kind after `cursor`, on `wake`, or when the signal aborts. */
  changed(kind: Kind, cursor: number, signal: AbortSignal): Promise<void> {
    if (this.#hasAfter(kind, cursor) || signal.aborted) return Promise.resolve()
    return new Promise((resolve) => {
      const done = () => {
        this.#waiting.delete(done)
        signal.removeEventListener('abort', done)
        resolve()
      }
      this.#waiting.set(done, kind)
      signal.addEventListener('abort', done)
    })
  }
}
