export {
  type DataDirectory,
  defaultDataDirectory,
  openDataDirectory,
  readKey,
  runDirectoryOf,
} from './data-directory.ts'
export { getXattrs, mkfifo, mknod, setXattr, tryLock } from './linux/libc.ts'
export { createNetworkNamespace, unmount } from './linux/namespace.ts'
