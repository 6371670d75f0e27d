import koffi from 'koffi'

const fadvise = koffi.load('libc.so.6').func('int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)')

const POSIX_FADV_DONTNEED = 4

/** Lets the kernel forget the clean pages of an open file, so that the next reads come from the disk. A wish, not a promise. */
export function forgetPages(fd: number): void {
  fadvise(fd, 0, 0, POSIX_FADV_DONTNEED)
}
