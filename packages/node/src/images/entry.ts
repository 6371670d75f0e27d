/**
 * One thing of a file system, on its way into a tree. Names are bytes: a `ByteString` holds one byte in each character
 * (latin1), so that names which are not UTF-8 stay what they are.
 */
export type ByteString = string

export type EntryKind = 'file' | 'directory' | 'symlink' | 'hardlink' | 'character' | 'block' | 'fifo'

/** Ownership and the rest that all names of one inode share. */
export interface Attributes {
  /** Permission bits with setuid, setgid and sticky. */
  mode: number
  uid: number
  gid: number
  mtime: Time
  xattrs: readonly Xattr[]
}

/** Since 1970; whole numbers, the nanoseconds from 0 on also before it. */
export interface Time {
  seconds: number
  nanoseconds: number
}

export interface Xattr {
  name: string
  value: Uint8Array
}

export interface Entry extends Attributes {
  kind: EntryKind
  /** As the source said it: not normalised, not yet trusted. */
  path: ByteString
  /** Bytes of content; 0 for all but files. */
  size: number
  /** Of symlinks what they hold; of hardlinks the other name; else empty. */
  target: ByteString
  /** Of devices. */
  major: number
  minor: number
}

/** Where a source puts what it reads, in order: `add`, then for files `write` until the size is reached, then `end`. */
export interface EntrySink {
  add(entry: Entry): void
  write(chunk: Uint8Array): void
  end(): void
}

export const EPOCH: Time = { seconds: 0, nanoseconds: 0 }

export const toBytes = (text: ByteString): Buffer => Buffer.from(text, 'latin1')
export const fromBytes = (bytes: Uint8Array): ByteString => Buffer.from(bytes).toString('latin1')
/** For messages: what a person would see. */
export const readable = (text: ByteString): string => toBytes(text).toString('utf8')
