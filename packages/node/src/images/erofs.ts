import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { IceboxError } from '@icebox/model'
import { type ByteString, type Entry, type EntryKind, type EntrySink, fromBytes, type Xattr } from './entry.ts'

/**
 * Reads the EROFS files that mkfs.erofs makes for us: not compressed, blocks of 4 KiB. The kernel could do it too, but not
 * every machine has its module, and fsck.erofs 1.5 extracts neither xattrs nor hardlinks.
 * Layout: Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h of Linux.
 */

const BLOCK = 4096
const SUPERBLOCK_OFFSET = 1024
const MAGIC = 0xe0f5e1e2
const SLOT = 32
const CHUNK = 1_048_576
const MAX_DIRECTORY_BYTES = 1_073_741_824
const MAX_SYMLINK_BYTES = 4096

/** How an inode's content lies: in blocks of its own, or with the tail right after the inode. */
const FLAT_PLAIN = 0
const FLAT_INLINE = 2

const XATTR_HEADER = 12
const XATTR_PREFIXES: Readonly<Record<number, string>> = {
  1: 'user.',
  2: 'system.posix_acl_access',
  3: 'system.posix_acl_default',
  4: 'trusted.',
  6: 'security.',
}

const KINDS: Readonly<Record<number, EntryKind>> = {
  1: 'fifo',
  2: 'character',
  4: 'directory',
  6: 'block',
  8: 'file',
  10: 'symlink',
}

interface ErofsInode {
  nid: bigint
  kind: EntryKind
  mode: number
  uid: number
  gid: number
  mtime: number
  links: number
  size: number
  layout: number
  /** First block of the content, or the device number. */
  union: number
  /** Where the xattrs start, and what follows them. */
  xattrs: { offset: number; end: number }
}

const invalid = (what: string): IceboxError => new IceboxError('ImageInvalid', `the EROFS file is not valid: ${what}`)

/** Throws `ImageInvalid` when the file does not start like an EROFS file that can be read. */
export function checkErofs(file: string): void {
  const reader = new ErofsReader(file)
  reader.close()
}

/** Gives all of an EROFS file to a sink. Throws `ImageInvalid`. */
export function readErofs(file: string, sink: EntrySink): void {
  const reader = new ErofsReader(file)
  try {
    reader.read(sink)
  } finally {
    reader.close()
  }
}

class ErofsReader {
  readonly #fd: number
  readonly #size: number
  readonly #root: bigint
  readonly #metaOffset: number
  readonly #xattrOffset: number
  readonly #buildTime: number
  readonly #chunk = Buffer.alloc(CHUNK)
  /** First name of each inode that has several, and the directories seen. */
  readonly #seen = new Map<bigint, ByteString>()

  constructor(file: string) {
    this.#fd = openSync(file, 'r')
    try {
      this.#size = fstatSync(this.#fd).size
      const superblock = this.#bytes(SUPERBLOCK_OFFSET, 128)
      if (superblock.readUInt32LE(0) !== MAGIC) throw invalid('it is another kind of file')
      if (2 ** superblock.readUInt8(12) !== BLOCK) throw invalid('its blocks are not of 4 KiB')
      if (superblock.readUInt32LE(36) * BLOCK > this.#size) throw invalid('it is truncated')
      this.#root = BigInt(superblock.readUInt16LE(14))
      this.#buildTime = Number(superblock.readBigUInt64LE(24))
      this.#metaOffset = superblock.readUInt32LE(40) * BLOCK
      this.#xattrOffset = superblock.readUInt32LE(44) * BLOCK
    } catch (thrown) {
      closeSync(this.#fd)
      throw thrown
    }
  }

  close(): void {
    closeSync(this.#fd)
  }

  read(sink: EntrySink): void {
    const root = this.#inode(this.#root)
    if (root.kind !== 'directory') throw invalid('its root is no directory')
    this.#seen.set(root.nid, '')
    sink.add(this.#entry(root, ''))
    this.#directory(root, '', sink)
  }

  #directory(directory: ErofsInode, path: ByteString, sink: EntrySink): void {
    for (const { nid, name } of this.#names(directory)) {
      if (name === '.' || name === '..') continue
      const below = path === '' ? name : `${path}/${name}`
      const inode = this.#inode(nid)
      const entry = this.#entry(inode, below)
      const first = this.#seen.get(nid)
      if (first !== undefined) {
        if (inode.kind === 'directory') throw invalid('a directory has two names')
        sink.add({ ...entry, kind: 'hardlink', size: 0, target: first })
        continue
      }
      if (inode.kind === 'directory' || inode.links > 1) this.#seen.set(nid, below)
      sink.add(entry)
      if (inode.kind === 'file') this.#content(inode, sink)
      else if (inode.kind === 'directory') this.#directory(inode, below, sink)
    }
  }

  #inode(nid: bigint): ErofsInode {
    const offset = this.#metaOffset + Number(nid) * SLOT
    const bytes = this.#bytes(offset, 2 * SLOT)
    const format = bytes.readUInt16LE(0)
    const extended = (format & 1) === 1
    const layout = (format >> 1) & 7
    const mode = bytes.readUInt16LE(4)
    const kind = KINDS[mode >> 12]
    if (kind === undefined) throw invalid(`an inode has the mode ${mode.toString(8)}`)
    if (layout !== FLAT_PLAIN && layout !== FLAT_INLINE) throw invalid('its content is compressed or in chunks')
    const count = bytes.readUInt16LE(2)
    const xattrs = offset + (extended ? 2 : 1) * SLOT
    return {
      nid,
      kind,
      layout,
      mode: mode & 0o7777,
      union: bytes.readUInt32LE(16),
      xattrs: { offset: xattrs, end: xattrs + (count === 0 ? 0 : XATTR_HEADER + 4 * (count - 1)) },
      ...(extended
        ? {
            size: Number(bytes.readBigUInt64LE(8)),
            uid: bytes.readUInt32LE(24),
            gid: bytes.readUInt32LE(28),
            mtime: Number(bytes.readBigInt64LE(32)) + bytes.readUInt32LE(40) / 1e9,
            links: bytes.readUInt32LE(44),
          }
        : {
            size: bytes.readUInt32LE(8),
            uid: bytes.readUInt16LE(24),
            gid: bytes.readUInt16LE(26),
            mtime: this.#buildTime,
            links: bytes.readUInt16LE(6),
          }),
    }
  }

  #entry(inode: ErofsInode, path: ByteString): Entry {
    const { kind, mode, uid, gid, mtime, union } = inode
    const device = kind === 'character' || kind === 'block'
    if (kind === 'symlink' && inode.size > MAX_SYMLINK_BYTES) throw invalid('a symbolic link is too long')
    return {
      ...{ kind, path, mode, uid, gid, mtime },
      size: kind === 'file' ? inode.size : 0,
      target: kind === 'symlink' ? fromBytes(this.#whole(inode)) : '',
      major: device ? (union >> 8) & 0xfff : 0,
      minor: device ? (union & 0xff) | ((union >>> 12) & 0xfff00) : 0,
      xattrs: this.#xattrs(inode),
    }
  }

  *#names(directory: ErofsInode): Generator<{ nid: bigint; name: ByteString }> {
    if (directory.size > MAX_DIRECTORY_BYTES) throw invalid('a directory is too large')
    const bytes = this.#whole(directory)
    for (let start = 0; start < bytes.length; start += BLOCK) {
      const block = bytes.subarray(start, start + BLOCK)
      const first = block.length < 12 ? 0 : block.readUInt16LE(8)
      if (first < 12 || first % 12 !== 0 || first > block.length) throw invalid('a directory is malformed')
      for (let at = 0; at < first; at += 12) {
        const from = block.readUInt16LE(at + 8)
        const next = at + 12 < first ? block.readUInt16LE(at + 20) : block.length
        if (from < first || next < from || next > block.length) throw invalid('a directory is malformed')
        const name = fromBytes(block.subarray(from, next)).replace(/\0.*$/s, '')
        if (name === '' || name.includes('/')) throw invalid('a name in a directory is impossible')
        yield { nid: block.readBigUInt64LE(at), name }
      }
    }
  }

  #xattrs({ xattrs: { offset, end } }: ErofsInode): Xattr[] {
    if (end === offset) return []
    const body = this.#bytes(offset, end - offset)
    const shared = body.readUInt8(4)
    const inline = XATTR_HEADER + 4 * shared
    if (inline > body.length) throw invalid('the extended attributes of a file are malformed')
    const found: Xattr[] = []
    for (let i = 0; i < shared; i++) {
      const at = this.#xattrOffset + 4 * body.readUInt32LE(XATTR_HEADER + 4 * i)
      const head = this.#bytes(at, 4)
      found.push(xattr(this.#bytes(at, 4 + head.readUInt8(0) + head.readUInt16LE(2)), 0).xattr)
    }
    for (let at = inline; at + 4 <= body.length && body.readUInt32LE(at) !== 0; ) {
      const { xattr: one, length } = xattr(body, at)
      found.push(one)
      at += Math.ceil(length / 4) * 4
    }
    return found
  }

  #content(inode: ErofsInode, sink: EntrySink): void {
    let left = inode.size
    for (const { offset, length } of this.#pieces(inode))
      for (let at = 0; at < length; at += CHUNK) {
        const part = this.#chunk.subarray(0, Math.min(CHUNK, length - at))
        this.#fill(part, offset + at)
        sink.write(part)
        left -= part.length
      }
    if (left !== 0) throw invalid('a file is shorter than it should be')
    sink.end()
  }

  #whole(inode: ErofsInode): Buffer {
    return Buffer.concat(this.#pieces(inode).map(({ offset, length }) => this.#bytes(offset, length)))
  }

  #pieces({ layout, size, union, xattrs }: ErofsInode): { offset: number; length: number }[] {
    const offset = union * BLOCK
    const tail = layout === FLAT_INLINE ? size % BLOCK : 0
    const pieces = [
      { offset, length: size - tail },
      { offset: xattrs.end, length: tail },
    ]
    // What is empty may point anywhere.
    return pieces.filter(({ length }) => length > 0)
  }

  #bytes(offset: number, length: number): Buffer {
    if (!Number.isSafeInteger(offset + length) || offset + length > this.#size)
      throw invalid('it points outside itself')
    const bytes = Buffer.alloc(length)
    this.#fill(bytes, offset)
    return bytes
  }

  #fill(into: Buffer, offset: number): void {
    for (let done = 0; done < into.length; ) {
      const count = readSync(this.#fd, into, done, into.length - done, offset + done)
      if (count === 0) throw invalid('it is truncated')
      done += count
    }
  }
}

function xattr(bytes: Buffer, at: number): { xattr: Xattr; length: number } {
  const nameLength = bytes.readUInt8(at)
  const prefix = XATTR_PREFIXES[bytes.readUInt8(at + 1)]
  const valueLength = bytes.readUInt16LE(at + 2)
  const length = 4 + nameLength + valueLength
  if (prefix === undefined || at + length > bytes.length)
    throw invalid('the extended attributes of a file are malformed')
  const name = `${prefix}${bytes.toString('utf8', at + 4, at + 4 + nameLength)}`
  return { xattr: { name, value: Buffer.from(bytes.subarray(at + 4 + nameLength, at + length)) }, length }
}
