import { closeSync, existsSync, openSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { IceboxError } from '@icebox/model'

/** Each entry takes the database from version `index` to `index + 1`. Entries are never changed, only added. */
const MIGRATIONS = [
  `CREATE TABLE resources (
     kind TEXT NOT NULL,
     namespace TEXT NOT NULL,
     name TEXT NOT NULL,
     version INTEGER NOT NULL,
     metadata TEXT NOT NULL,
     spec TEXT NOT NULL,
     status TEXT NOT NULL,
     PRIMARY KEY (kind, namespace, name)
   ) STRICT;
   -- The newest changes, without gaps. A put holds the key only (the content is in resources), a delete the last content.
   CREATE TABLE changes (
     version INTEGER PRIMARY KEY,
     kind TEXT NOT NULL,
     namespace TEXT NOT NULL,
     name TEXT NOT NULL,
     metadata TEXT,
     spec TEXT,
     status TEXT
   ) STRICT;
   CREATE INDEX changes_by_kind ON changes (kind, namespace, version);`,
]

/** "ICBX": marks the file as ours. */
const APPLICATION_ID = 0x49434258

const SQLITE_BUSY = 5
const SQLITE_FULL = 13
const SQLITE_NOTADB = 26

const integer = (database: DatabaseSync, pragma: string): number =>
  Number(Object.values(database.prepare(`PRAGMA ${pragma}`).get() ?? {})[0])

/** What SQLite threw, with a code of the registry. */
export function fromSqlite(thrown: unknown, file: string): IceboxError {
  const code = thrown instanceof Error && 'errcode' in thrown ? Number(thrown.errcode) & 0xff : undefined
  const message = thrown instanceof Error ? thrown.message : String(thrown)
  if (code === SQLITE_FULL)
    return new IceboxError('NoSpace', `no room on the disk for ${file}; nothing was changed`, {
      cause: thrown,
      remedy: 'Free space in the file system of the data directory, then try again.',
    })
  if (code === SQLITE_BUSY)
    return new IceboxError('Conflict', `another process has the database ${file} open`, {
      cause: thrown,
      remedy: 'Stop the other server of this data directory, or use another data directory.',
    })
  if (code === SQLITE_NOTADB)
    return new IceboxError('Internal', `${file} is not a SQLite database, or is damaged`, {
      cause: thrown,
      remedy: 'Put a copy of the database from before the damage in its place, or start with another data directory.',
    })
  return thrown instanceof IceboxError ? thrown : new IceboxError('Internal', `${file}: ${message}`, { cause: thrown })
}

/** The schema version. Reads only, so that a database we refuse stays as it is. */
function recognise(database: DatabaseSync, file: string): number {
  const version = integer(database, 'user_version')
  const application = integer(database, 'application_id')
  const empty = integer(database, 'page_count') <= 1 && version === 0
  if (application !== APPLICATION_ID && !(application === 0 && empty))
    throw new IceboxError('InvalidArgument', `${file} is a database of another program`, {
      remedy: 'Use another data directory.',
    })
  if (version > MIGRATIONS.length)
    throw new IceboxError(
      'NotImplemented',
      `the database ${file} has schema version ${version}, and this program knows versions up to ${MIGRATIONS.length}: a newer Icebox has written it`,
      { remedy: 'Run the version of Icebox that wrote it, or a newer one.' },
    )
  return version
}

function migrate(database: DatabaseSync, version: number): void {
  if (version === MIGRATIONS.length) return
  database.exec('BEGIN IMMEDIATE')
  for (const statements of MIGRATIONS.slice(version)) database.exec(statements)
  database.exec(`PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = ${MIGRATIONS.length}; COMMIT`)
}

/**
 * Opens (creates, migrates) the database file, for this process alone. Commits are atomic but not durable by themselves:
 * `Durability` syncs the log. Throws Conflict (open elsewhere), NotImplemented (newer than the program), NoSpace, Internal.
 */
export function openDatabase(file: string): DatabaseSync {
  // SQLite gives the write-ahead log the mode of the database. An existing file is not touched: closing a descriptor
  // of it would drop the locks that this process may already hold.
  if (!existsSync(file)) closeSync(openSync(file, 'ax', 0o600))
  let database: DatabaseSync | undefined
  try {
    database = new DatabaseSync(file, { timeout: 0 })
    database.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA synchronous = FULL')
    const version = recognise(database, file)
    database.exec('PRAGMA journal_mode = WAL')
    migrate(database, version)
    // Checkpoints still sync the log before the database and the database before the log is used again.
    database.exec('PRAGMA synchronous = NORMAL')
    return database
  } catch (thrown) {
    database?.close()
    throw fromSqlite(thrown, file)
  }
}
