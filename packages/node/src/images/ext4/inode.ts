import { IceboxError } from '@icebox/model'
import { BLOCK_BYTES } from '../contents.ts'
import type { Attributes, Time } from '../entry.ts'
import { packDevice, type StoredKind, TYPE_BITS } from '../modes.ts'
import { EXTENTS_FLAG, INODE_BYTES, MAX_LINKS } from './format.ts'
import { encodeXattrs } from './xattrs.ts'

const EXTRA_BYTES = 32
const XATTRS_OFFSET = 128 + EXTRA_BYTES
const UNION_OFFSET = 40
const UNION_BYTES = 60
const MIN_SECONDS = -(2 ** 31)
const MAX_SECONDS = 2 ** 34 + MIN_SECONDS - 1
const EXTENT_MAGIC = 0xf30a
const EXTENT_BYTES = 12
const MAX_EXTENT_BLOCKS = 32_768
const EXTENTS_IN_INODE = 4
const EXTENTS_IN_BLOCK = Math.floor((BLOCK_BYTES - EXTENT_BYTES) / EXTENT_BYTES)
/** A link that is shorter lies in the inode itself. */
export const FAST_SYMLINK_BYTES = UNION_BYTES

export interface InodeFields {
  kind: StoredKind
  attributes: Attributes
  links: number
  size: number
  /** Its content, one run of blocks; none: no blocks. */
  run: { start: number; count: number } | undefined
  /** Of a short symbolic link. */
  inline?: Buffer
  device?: { major: number; minor: number }
}

/** The 256 bytes of an inode. `allocate` gives one more block and takes what is to be written there. */
export function encodeInode(fields: InodeFields, allocate: (content: Buffer) => number): Buffer {
  const { kind, attributes, links, size, run, inline, device } = fields
  const { uid, gid, mode, mtime, xattrs } = attributes
  const inode = Buffer.alloc(INODE_BYTES)
  let blocks = run?.count ?? 0
  const allocateCounted = (content: Buffer) => {
    blocks++
    return allocate(content)
  }
  inode.writeUInt16LE(TYPE_BITS[kind] | mode, 0)
  inode.writeUInt16LE(uid & 0xffff, 2)
  inode.writeUInt32LE(size % 2 ** 32, 4)
  writeTimes(inode, mtime)
  inode.writeUInt16LE(gid & 0xffff, 24)
  inode.writeUInt16LE(kind === 'directory' && links >= MAX_LINKS ? 1 : links, 26)
  if (inline !== undefined) inline.copy(inode, UNION_OFFSET)
  else if (device !== undefined) writeDevice(inode, device)
  else if (kind !== 'fifo') {
    inode.writeUInt32LE(EXTENTS_FLAG, 32)
    extents(run, allocateCounted).copy(inode, UNION_OFFSET)
  }
  const encoded = encodeXattrs(xattrs, INODE_BYTES - XATTRS_OFFSET)
  encoded.inside?.copy(inode, XATTRS_OFFSET)
  if (encoded.block !== undefined) inode.writeUInt32LE(allocateCounted(encoded.block), 104)
  inode.writeUInt32LE(Math.floor(size / 2 ** 32), 108)
  const sectors = blocks * (BLOCK_BYTES / 512)
  inode.writeUInt32LE(sectors % 2 ** 32, 28)
  inode.writeUInt16LE(Math.floor(sectors / 2 ** 32), 116)
  inode.writeUInt16LE(uid >>> 16, 120)
  inode.writeUInt16LE(gid >>> 16, 122)
  inode.writeUInt16LE(EXTRA_BYTES, 128)
  return inode
}

/** Changed, accessed and made when modified: what else could be said would differ from run to run. */
function writeTimes(inode: Buffer, mtime: Time): void {
  // 34 bits, of which the lower 32 have a sign.
  const seconds = Math.min(MAX_SECONDS, Math.max(MIN_SECONDS, mtime.seconds))
  const low = seconds | 0
  const extra = ((mtime.nanoseconds << 2) | (Math.floor((seconds - low) / 2 ** 32) & 3)) >>> 0
  for (const at of [8, 12, 16, 144]) inode.writeInt32LE(low, at)
  for (const at of [132, 136, 140, 148]) inode.writeUInt32LE(extra, at)
}

/** Small numbers in the old form, which programs that look into the inode expect; others in the new one. */
function writeDevice(inode: Buffer, { major, minor }: { major: number; minor: number }): void {
  if (major < 256 && minor < 256) inode.writeUInt32LE((major << 8) | minor, UNION_OFFSET)
  else inode.writeUInt32LE(packDevice(major, minor), UNION_OFFSET + 4)
}

/** The extent tree of one run: in the inode, or one level of blocks below it. */
export function extents(
  run: { start: number; count: number } | undefined,
  allocate: (content: Buffer) => number,
): Buffer {
  const pieces: { logical: number; start: number; count: number }[] = []
  for (let done = 0; run !== undefined && done < run.count; done += MAX_EXTENT_BLOCKS)
    pieces.push({ logical: done, start: run.start + done, count: Math.min(MAX_EXTENT_BLOCKS, run.count - done) })
  if (pieces.length <= EXTENTS_IN_INODE) return leaf(pieces, Buffer.alloc(UNION_BYTES), EXTENTS_IN_INODE)
  const root = Buffer.alloc(UNION_BYTES)
  const leaves = Math.ceil(pieces.length / EXTENTS_IN_BLOCK)
  if (leaves > EXTENTS_IN_INODE) throw new IceboxError('ImageInvalid', 'a file of the image is too large for ext4')
  header(root, leaves, EXTENTS_IN_INODE, 1)
  for (let i = 0; i < leaves; i++) {
    const own = pieces.slice(i * EXTENTS_IN_BLOCK, (i + 1) * EXTENTS_IN_BLOCK)
    const at = EXTENT_BYTES * (i + 1)
    root.writeUInt32LE(own[0]?.logical ?? 0, at)
    root.writeUInt32LE(allocate(leaf(own, Buffer.alloc(BLOCK_BYTES), EXTENTS_IN_BLOCK)), at + 4)
  }
  return root
}

function leaf(pieces: { logical: number; start: number; count: number }[], into: Buffer, room: number): Buffer {
  header(into, pieces.length, room, 0)
  for (const [i, { logical, start, count }] of pieces.entries()) {
    const at = EXTENT_BYTES * (i + 1)
    into.writeUInt32LE(logical, at)
    into.writeUInt16LE(count, at + 4)
    into.writeUInt32LE(start, at + 8)
  }
  return into
}

function header(into: Buffer, entries: number, room: number, depth: number): void {
  into.writeUInt16LE(EXTENT_MAGIC, 0)
  into.writeUInt16LE(entries, 2)
  into.writeUInt16LE(room, 4)
  into.writeUInt16LE(depth, 6)
}
