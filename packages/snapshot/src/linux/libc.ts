import koffi from 'koffi'

/** The few system calls that Node does not offer. Foreign calls stay in this folder. */
const libc = koffi.load('libc.so.6')
const mkfifoCall = libc.func('int mkfifo(const char *path, uint32_t mode)')
const flockCall = libc.func('int flock(int fd, int operation)')

const LOCK_EX = 2
const LOCK_NB = 4
const EAGAIN = 11

function failure(call: string, subject: string): Error {
  const errno = koffi.errno()
  const name = Object.entries(koffi.os.errno).find(([, value]) => value === errno)?.[0] ?? String(errno)
  return Object.assign(new Error(`${call} ${subject}: ${name}`), { code: name, errno })
}

/** Makes a FIFO. Throws an Error with `code` (such as EEXIST). */
export function mkfifo(path: string, mode: number): void {
  if (mkfifoCall(path, mode) !== 0) throw failure('mkfifo', path)
}

/** Takes the exclusive lock of an open file, held until its last descriptor closes. False when another holds it. */
export function tryLock(fd: number): boolean {
  if (flockCall(fd, LOCK_EX | LOCK_NB) === 0) return true
  if (koffi.errno() === EAGAIN) return false
  throw failure('flock', String(fd))
}
