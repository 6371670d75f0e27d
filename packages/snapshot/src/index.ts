export type { ExtraFile } from './archive/export.ts'
export type { Incoming } from './archive/import.ts'
export { Ballast, makeRoomToStart } from './ballast.ts'
export {
  type DataDirectory,
  defaultDataDirectory,
  openDataDirectory,
  readKey,
  runDirectoryOf,
} from './data-directory.ts'
export { renameSynced, sync, writeSynced } from './durable.ts'
export { gate } from './gate.ts'
export {
  distrustKey,
  type Keyring,
  openKeyring,
  PublicKey,
  readKeys,
  type TrustedKey,
  trustKey,
} from './keyring.ts'
export { enlargePipe, getXattrs, mkfifo, setXattr, tryLock } from './linux/libc.ts'
export { createNetworkNamespace, unmount } from './linux/namespace.ts'
export type { DriverFacts, Manifest } from './manifest.ts'
export {
  type Draft,
  type ManifestInput,
  type OpenSnapshot,
  openSnapshots,
  type Snapshots,
} from './snapshots.ts'
export {
  allocatedBytes,
  claimSpace,
  freeBytes,
  mebibytes,
  requireSpace,
  type Space,
  spaceOf,
  withinSpace,
} from './space.ts'
export { type SnapshotTree, tree } from './tree.ts'
