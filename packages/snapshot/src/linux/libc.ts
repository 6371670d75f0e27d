import koffi from 'koffi'

/** The few system calls that Node does not offer. Foreign calls stay in this folder. */
const libc = koffi.load('libc.so.6')
const mkfifoCall = libc.func('int mkfifo(const char *path, uint32_t mode)')
const fallocateCall = libc.func('int fallocate(int fd, int mode, int64_t offset, int64_t length)')
const fcntlCall = libc.func('int fcntl(int fd, int command, int argument)')
const flockCall = libc.func('int flock(int fd, int operation)')
// Paths that may hold any bytes are passed as such, with a NUL at the end.
const lsetxattrCall = libc.func(
  'int lsetxattr(const uint8_t *path, const char *name, const uint8_t *value, size_t size, int flags)',
)
const lgetxattrCall = libc.func(
  'int64_t lgetxattr(const uint8_t *path, const char *name, _Out_ uint8_t *value, size_t size)',
)
const llistxattrCall = libc.func('int64_t llistxattr(const uint8_t *path, _Out_ uint8_t *list, size_t size)')

const F_SETPIPE_SZ = 1031
const FALLOC_FL_KEEP_SIZE = 1
const LOCK_EX = 2
const LOCK_NB = 4
const EAGAIN = 11
const EOPNOTSUPP = 95

function failure(call: string, subject: string): Error {
  const errno = koffi.errno()
  const name = Object.entries(koffi.os.errno).find(([, value]) => value === errno)?.[0] ?? String(errno)
  return Object.assign(new Error(`${call} ${subject}: ${name}`), { code: name, errno })
}

/** Makes a FIFO. Throws an Error with `code` (such as EEXIST). */
export function mkfifo(path: string, mode: number): void {
  if (mkfifoCall(path, mode) !== 0) throw failure('mkfifo', path)
}

/** Lets a pipe hold so many bytes. A wish: the system may not allow it, and a pipe that holds more already is left alone by it. */
export function enlargePipe(fd: number, bytes: number): void {
  fcntlCall(fd, F_SETPIPE_SZ, bytes)
}

/** Gives an open file so many bytes of the disk, whose content is zeros. Throws an Error with `code` (ENOSPC, EOPNOTSUPP). */
export function allocate(fd: number, bytes: number): void {
  if (fallocateCall(fd, 0, 0, bytes) !== 0) throw failure('fallocate', String(fd))
}

/** The same without making it longer: what it grows by within so many bytes needs no room any more. */
export function reserveBlocks(fd: number, bytes: number): void {
  if (fallocateCall(fd, FALLOC_FL_KEEP_SIZE, 0, bytes) !== 0) throw failure('fallocate', String(fd))
}

/** Takes the exclusive lock of an open file, held until its last descriptor closes. False when another holds it. */
export function tryLock(fd: number): boolean {
  if (flockCall(fd, LOCK_EX | LOCK_NB) === 0) return true
  if (koffi.errno() === EAGAIN) return false
  throw failure('flock', String(fd))
}

const terminated = (path: Uint8Array): Buffer => Buffer.concat([path, new Uint8Array(1)])
const readable = (path: Uint8Array): string => Buffer.from(path).toString()

/** Sets an extended attribute of the file itself, also of a symbolic link. Throws an Error with `code`. */
export function setXattr(path: Uint8Array, name: string, value: Uint8Array): void {
  if (lsetxattrCall(terminated(path), name, value, value.byteLength, 0) !== 0)
    throw failure(`setxattr ${name} on`, readable(path))
}

/** The kernel's limits of a value and of a list of names. */
const XATTR_MAX = 65_536

/** The extended attributes of the file itself, by name. A file system without any gives an empty map. Throws an Error with `code`. */
export function getXattrs(path: Uint8Array): Map<string, Buffer> {
  const subject = terminated(path)
  const buffer = Buffer.alloc(XATTR_MAX)
  const listed = Number(llistxattrCall(subject, buffer, XATTR_MAX))
  const found = new Map<string, Buffer>()
  if (listed < 0) {
    if (koffi.errno() === EOPNOTSUPP) return found
    throw failure('listxattr', readable(path))
  }
  for (const name of buffer.toString('utf8', 0, listed).split('\0').filter(Boolean)) {
    const length = Number(lgetxattrCall(subject, name, buffer, XATTR_MAX))
    if (length < 0) throw failure(`getxattr ${name} of`, readable(path))
    found.set(name, Buffer.from(buffer.subarray(0, length)))
  }
  return found
}
