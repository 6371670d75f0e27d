import { rm } from 'node:fs/promises'
import { SqliteStore } from './sqlite/sqlite-store.ts'
import type { ResourceStore } from './store.ts'

export {
  isNewer,
  type List,
  type ListOptions,
  MAX_RESOURCE_BYTES,
  type MetadataChange,
  type ResourceStore,
  type WatchEvent,
} from './store.ts'

/**
 * Opens the store in a SQLite file, which it makes when absent, for this process alone. A write that was acknowledged
 * survives a crash and a loss of power. Throws Conflict (open elsewhere), NotImplemented (written by a newer Icebox),
 * InvalidArgument (a database of another program), NoSpace, Internal (damaged). A write that finds the disk full has changed nothing;
 * `makeRoom` is asked then, and when it says true the write is tried once more.
 */
export const openSqliteStore = (
  file: string,
  { makeRoom = () => false }: { makeRoom?: () => boolean } = {},
): Promise<ResourceStore> => SqliteStore.open(file, makeRoom)

/** Removes the file of a store that is closed, with what SQLite keeps beside it. */
export async function removeDatabase(file: string): Promise<void> {
  for (const suffix of ['', '-wal', '-shm']) await rm(`${file}${suffix}`, { force: true })
}
