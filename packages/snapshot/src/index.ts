export {
  type DataDirectory,
  defaultDataDirectory,
  openDataDirectory,
  readKey,
  runDirectoryOf,
} from './data-directory.ts'
export { mkfifo, tryLock } from './linux/libc.ts'
export { createNetworkNamespace, unmount } from './linux/namespace.ts'
