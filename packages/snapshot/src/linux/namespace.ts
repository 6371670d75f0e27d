import { closeSync, openSync } from 'node:fs'
import koffi from 'koffi'

/** Network namespaces and their mounts by system call: tenths of a millisecond, where a program would cost several. */
const libc = koffi.load('libc.so.6')
const unshareCall = libc.func('int unshare(int flags)')
const setnsCall = libc.func('int setns(int fd, int type)')
const mountCall = libc.func(
  'int mount(const char *source, const char *target, const char *type, unsigned long flags, const void *data)',
)
const umountCall = libc.func('int umount2(const char *target, int flags)')
const socketCall = libc.func('int socket(int domain, int type, int protocol)')
const ioctlCall = libc.func('int ioctl(int fd, unsigned long request, void *argument)')

const CLONE_NEWNET = 0x40000000
const MS_BIND = 0x1000
const MNT_DETACH = 2
const UMOUNT_NOFOLLOW = 8
const AF_INET = 2
const SOCK_DGRAM = 2
const SOCK_CLOEXEC = 0o2000000
const SIOCSIFFLAGS = 0x8914
const IFF_UP = 1
/** `struct ifreq`: 16 bytes of name, then the flags. */
const IFREQ_BYTES = 40
const IFREQ_FLAGS = 16

function check(result: number, call: string, subject: string): number {
  if (result >= 0) return result
  const errno = koffi.errno()
  const name = Object.entries(koffi.os.errno).find(([, value]) => value === errno)?.[0] ?? String(errno)
  throw Object.assign(new Error(`${call} ${subject}: ${name}`), { code: name, errno })
}

function raiseLoopback(): void {
  const socket = check(socketCall(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), 'socket', 'AF_INET')
  try {
    const request = Buffer.alloc(IFREQ_BYTES)
    request.write('lo')
    request.writeUInt16LE(IFF_UP, IFREQ_FLAGS)
    check(ioctlCall(socket, SIOCSIFFLAGS, request), 'SIOCSIFFLAGS', 'lo')
  } finally {
    closeSync(socket)
  }
}

/**
 * Makes a network namespace that holds only `lo`, up, and mounts it on the (existing, empty) file `path`. Needs root.
 * Synchronous on purpose: the calling thread is inside the new namespace for a moment, during which nothing else of it may run.
 */
export function createNetworkNamespace(path: string): void {
  const home = openSync('/proc/thread-self/ns/net', 'r')
  try {
    check(unshareCall(CLONE_NEWNET), 'unshare', 'network')
    try {
      raiseLoopback()
      check(mountCall('/proc/thread-self/ns/net', path, 'none', MS_BIND, null), 'mount', path)
    } finally {
      // A thread that cannot go home would open its next sockets in a sandbox's namespace.
      if (setnsCall(home, CLONE_NEWNET) !== 0) process.abort()
    }
  } finally {
    closeSync(home)
  }
}

/** Takes away what is mounted on top of `path`, at once even when in use. False when nothing is mounted there. */
export function unmount(path: string): boolean {
  if (umountCall(path, MNT_DETACH | UMOUNT_NOFOLLOW) === 0) return true
  const errno = koffi.errno()
  if (errno === koffi.os.errno.EINVAL || errno === koffi.os.errno.ENOENT) return false
  check(-1, 'umount2', path)
  return false
}
