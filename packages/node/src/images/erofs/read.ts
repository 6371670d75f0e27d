import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { IceboxError } from '@icebox/model'
import { z } from 'zod'
import { BLOCK_BYTES } from '../contents.ts'
import { type ByteString, type Entry, type EntrySink, fromBytes, type Time, type Xattr } from '../entry.ts'
import { KIND_OF_MODE, type StoredKind } from '../modes.ts'
import {
  ATTRIBUTES_FOOTER_BYTES,
  ATTRIBUTES_MARK,
  DIRENT_BYTES,
  EROFS_MAGIC,
  EXTENDED,
  EXTENDED_INODE_BYTES,
  FLAT_INLINE,
  FLAT_PLAIN,
  MAX_ATTRIBUTES_BYTES,
  SLOT_BYTES,
  SUPERBLOCK_BYTES,
  SUPERBLOCK_OFFSET,
} from './format.ts'

const CHUNK = 1_048_576
/** Far above what the names of an image that may be unpacked take. */
const MAX_DIRECTORY_BYTES = 268_435_456
const MAX_SYMLINK_BYTES = 4096

interface ErofsInode {
  nid: bigint
  kind: StoredKind
  mode: number
  uid: number
  gid: number
  mtime: Time
  links: number
  size: number
  /** First block of the content, or the device number. */
  union: number
  /** Bytes of content right after the inode, which are at `tailOffset`. */
  tail: number
  tailOffset: number
}

/** An extended attribute and the file it belongs to: an absolute path, which need not be UTF-8. */
export interface FileAttribute {
  path: Buffer
  name: string
  value: Buffer
}

const invalid = (what: string): IceboxError => new IceboxError('ImageInvalid', `the EROFS file is not valid: ${what}`)

const Attributes = z.array(z.tuple([z.base64(), z.string(), z.base64()]))

/** Throws `ImageInvalid` when the file does not start like one that writeErofs made. */
export function checkErofs(file: string): void {
  new ErofsReader(file).close()
}

/** Gives all of an EROFS file that writeErofs made to a sink. Throws `ImageInvalid`. */
export function readErofs(file: string, sink: EntrySink): void {
  const reader = new ErofsReader(file)
  try {
    reader.read(sink)
  } finally {
    reader.close()
  }
}

/** The extended attributes kept behind the file system. Throws `ImageInvalid`. */
export function readAttributes(file: string): FileAttribute[] {
  const reader = new ErofsReader(file)
  try {
    return reader.attributes()
  } finally {
    reader.close()
  }
}

class ErofsReader {
  readonly #fd: number
  readonly #size: number
  readonly #end: number
  readonly #root: bigint
  readonly #metadata: number
  readonly #chunk = Buffer.alloc(CHUNK)
  /** First name of each inode that has several, and the directories seen. */
  readonly #seen = new Map<bigint, ByteString>()
  #attributes = new Map<ByteString, Xattr[]>()

  constructor(file: string) {
    this.#fd = openSync(file, 'r')
    try {
      this.#size = fstatSync(this.#fd).size
      const superblock = this.#bytes(SUPERBLOCK_OFFSET, SUPERBLOCK_BYTES)
      if (superblock.readUInt32LE(0) !== EROFS_MAGIC) throw invalid('it is another kind of file')
      if (2 ** superblock.readUInt8(12) !== BLOCK_BYTES) throw invalid('its blocks are not of 4 KiB')
      if (superblock.readUInt32LE(80) !== 0) throw invalid('it has features that we do not write')
      this.#end = superblock.readUInt32LE(36) * BLOCK_BYTES
      if (this.#end > this.#size) throw invalid('it is truncated')
      this.#root = BigInt(superblock.readUInt16LE(14))
      this.#metadata = superblock.readUInt32LE(40) * BLOCK_BYTES
    } catch (thrown) {
      closeSync(this.#fd)
      throw thrown
    }
  }

  close(): void {
    closeSync(this.#fd)
  }

  attributes(): FileAttribute[] {
    if (this.#size === this.#end) return []
    const footer = this.#bytes(this.#size - ATTRIBUTES_FOOTER_BYTES, ATTRIBUTES_FOOTER_BYTES)
    const length = this.#size - this.#end - ATTRIBUTES_FOOTER_BYTES
    if (!footer.subarray(8).equals(ATTRIBUTES_MARK) || footer.readBigUInt64LE(0) !== BigInt(length))
      throw invalid('what follows the file system is not ours')
    if (length > MAX_ATTRIBUTES_BYTES) throw invalid('it has too many extended attributes')
    let found: z.infer<typeof Attributes>
    try {
      found = Attributes.parse(JSON.parse(this.#bytes(this.#end, length).toString()))
    } catch {
      throw invalid('its extended attributes are malformed')
    }
    return found.map(([path, name, value]) => ({
      path: Buffer.from(path, 'base64'),
      name,
      value: Buffer.from(value, 'base64'),
    }))
  }

  read(sink: EntrySink): void {
    for (const { path, name, value } of this.attributes()) {
      const key = fromBytes(path)
      const known = this.#attributes.get(key)
      if (known === undefined) this.#attributes.set(key, [{ name, value }])
      else known.push({ name, value })
    }
    const root = this.#inode(this.#root)
    if (root.kind !== 'directory') throw invalid('its root is no directory')
    this.#seen.set(root.nid, '/')
    sink.add(this.#entry(root, '/'))
    this.#directory(root, '', sink)
  }

  #directory(directory: ErofsInode, path: ByteString, sink: EntrySink): void {
    for (const { nid, name } of this.#names(directory)) {
      if (name === '.' || name === '..') continue
      const below = `${path}/${name}`
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
    const offset = this.#metadata + Number(nid) * SLOT_BYTES
    const bytes = this.#bytes(offset, EXTENDED_INODE_BYTES)
    const format = bytes.readUInt16LE(0)
    const layout = format >> 1
    const mode = bytes.readUInt16LE(4)
    const kind = KIND_OF_MODE[mode >> 12]
    if (kind === undefined) throw invalid(`an inode has the mode ${mode.toString(8)}`)
    if ((format & EXTENDED) === 0 || (layout !== FLAT_PLAIN && layout !== FLAT_INLINE) || bytes.readUInt16LE(2) !== 0)
      throw invalid('an inode has a form that we do not write')
    const size = Number(bytes.readBigUInt64LE(8))
    return {
      nid,
      kind,
      mode: mode & 0o7777,
      size,
      union: bytes.readUInt32LE(16),
      uid: bytes.readUInt32LE(24),
      gid: bytes.readUInt32LE(28),
      mtime: { seconds: Number(bytes.readBigInt64LE(32)), nanoseconds: bytes.readUInt32LE(40) },
      links: bytes.readUInt32LE(44),
      tail: layout === FLAT_INLINE ? size % BLOCK_BYTES : 0,
      tailOffset: offset + EXTENDED_INODE_BYTES,
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
      major: device ? (union >>> 8) & 0xfff : 0,
      minor: device ? (union & 0xff) | ((union >>> 12) & 0xfff00) : 0,
      xattrs: this.#attributes.get(path) ?? [],
    }
  }

  *#names(directory: ErofsInode): Generator<{ nid: bigint; name: ByteString }> {
    if (directory.size > MAX_DIRECTORY_BYTES) throw invalid('a directory is too large')
    const bytes = this.#whole(directory)
    for (let start = 0; start < bytes.length; start += BLOCK_BYTES) {
      const block = bytes.subarray(start, start + BLOCK_BYTES)
      const first = block.length < DIRENT_BYTES ? 0 : block.readUInt16LE(8)
      if (first < DIRENT_BYTES || first % DIRENT_BYTES !== 0 || first > block.length)
        throw invalid('a directory is malformed')
      for (let at = 0; at < first; at += DIRENT_BYTES) {
        const from = block.readUInt16LE(at + 8)
        const next = at + DIRENT_BYTES < first ? block.readUInt16LE(at + DIRENT_BYTES + 8) : block.length
        if (from < first || next < from || next > block.length) throw invalid('a directory is malformed')
        const [name = ''] = fromBytes(block.subarray(from, next)).split('\0')
        if (name === '' || name.includes('/')) throw invalid('a name in a directory is impossible')
        yield { nid: block.readBigUInt64LE(at), name }
      }
    }
  }

  #content(inode: ErofsInode, sink: EntrySink): void {
    for (const { offset, length } of this.#pieces(inode))
      for (let at = 0; at < length; at += CHUNK) {
        const part = this.#chunk.subarray(0, Math.min(CHUNK, length - at))
        this.#fill(part, offset + at)
        sink.write(part)
      }
    sink.end()
  }

  #whole(inode: ErofsInode): Buffer {
    return Buffer.concat(this.#pieces(inode).map(({ offset, length }) => this.#bytes(offset, length)))
  }

  #pieces({ size, union, tail, tailOffset }: ErofsInode): { offset: number; length: number }[] {
    const pieces = [
      { offset: union * BLOCK_BYTES, length: size - tail },
      { offset: tailOffset, length: tail },
    ]
    // What is empty may point anywhere.
    return pieces.filter(({ length }) => length > 0)
  }

  #bytes(offset: number, length: number): Buffer {
    if (offset < 0 || !Number.isSafeInteger(offset + length) || offset + length > this.#size)
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
