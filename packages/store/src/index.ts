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
 * InvalidArgument (a database of another program), NoSpace, Internal (damaged).
 */
export const openSqliteStore = (file: string): Promise<ResourceStore> => SqliteStore.open(file)
