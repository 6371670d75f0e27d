import { IceboxError } from '@icebox/model'
import { mebibytes } from '@icebox/snapshot'
import { BLOCK_BYTES, blocksOf, type ContentFile, type Run } from '../contents.ts'
import { type Attributes, type ByteString, EPOCH, readable, toBytes } from '../entry.ts'
import type { Directory, Inode } from '../tree.ts'
import { type DirectoryEntry, encodeDirectory } from './directory.ts'
import {
  BLOCKS_PER_GROUP,
  FIRST_INODE,
  GROUP_DESCRIPTOR_BYTES,
  INODE_BYTES,
  JOURNAL_INODE,
  MAX_LINKS,
  ROOT_INODE,
} from './format.ts'
import { encodeInode, FAST_SYMLINK_BYTES } from './inode.ts'
import { encodeJournal, encodeSuperblock, journalBlocks } from './superblock.ts'

const MIB = 1_048_576
export const MIN_EXT4_BYTES = 16 * MIB
export const MAX_EXT4_BYTES = 8 * MIB * MIB
const DEFAULT_MIN_BYTES = 1024 * MIB
const DEFAULT_STEP_BYTES = 64 * MIB
const MAX_DEFAULT_BYTES = MIB * MIB
/** mke2fs' measure for how many files there will be. */
const BYTES_PER_INODE = 16_384
const INODES_PER_BLOCK = BLOCK_BYTES / INODE_BYTES
/** Inodes written at a time. */
const BATCH = 4096

const groupsOf = (bytes: number): number => Math.ceil(bytes / BLOCK_BYTES / BLOCKS_PER_GROUP)
const descriptorBlocks = (groups: number): number => blocksOf(groups * GROUP_DESCRIPTOR_BYTES)

/** Blocks before the contents: the superblock and the group descriptors, for the size wanted or any default one. */
export const ext4ReservedBlocks = (sizeBytes: number | undefined): number =>
  1 + descriptorBlocks(groupsOf(sizeBytes ?? MAX_DEFAULT_BYTES))

/** Throws `InvalidArgument` for a size that no image can have. Gives it in whole blocks. */
export function checkExt4Size(bytes: number): number {
  if (!Number.isInteger(bytes) || bytes < MIN_EXT4_BYTES || bytes > MAX_EXT4_BYTES)
    throw new IceboxError(
      'InvalidArgument',
      `an ext4 file of ${bytes} bytes cannot be made: 16 MiB to 8 TiB are possible`,
    )
  return bytes - (bytes % BLOCK_BYTES)
}

/**
 * Completes an ext4 file whose contents are written. All that describes them lies after them, as flexible groups allow, and
 * what is not used stays a hole. It has a journal and no checksums of metadata. The same tree gives the same bytes.
 * `sizeBytes`: of the file system; undefined: enough for a quarter more and at least 1 GiB. Gives the size in bytes, to which
 * the file must be extended. Throws `InvalidArgument` when the tree does not fit.
 */
export function writeExt4(root: Directory, file: ContentFile, uuid: Uint8Array, sizeBytes: number | undefined): number {
  const writer = new Ext4Writer(root, file, uuid)
  return writer.write(sizeBytes)
}

interface Numbered {
  number: number
  source: Inode | Directory
  links: number
  /** Of directories: what they hold, `.` and `..` included. */
  entries: DirectoryEntry[]
}

class Ext4Writer {
  readonly #file: ContentFile
  readonly #uuid: Uint8Array
  readonly #root: Directory
  readonly #inodes: Numbered[] = []
  readonly #byInode = new Map<Inode, Numbered>()
  #nextInode = FIRST_INODE

  constructor(root: Directory, file: ContentFile, uuid: Uint8Array) {
    this.#file = file
    this.#uuid = uuid
    // e2fsck wants a place for what it may find.
    const lost: Directory = {
      kind: 'directory',
      layer: 0,
      newestBelow: 0,
      cleared: 0,
      attributes: { ...root.attributes, mode: 0o700, uid: 0, gid: 0, xattrs: [] },
      children: new Map(),
    }
    const children = root.children.has('lost+found') ? root.children : new Map([...root.children, ['lost+found', lost]])
    this.#root = { ...root, children }
  }

  write(sizeBytes: number | undefined): number {
    this.#number(this.#root, ROOT_INODE, ROOT_INODE, '')
    const used = this.#nextInode - 1
    const size = sizeBytes ?? this.#defaultSize(used)
    const blocks = size / BLOCK_BYTES
    const groups = groupsOf(size)
    const wanted = Math.max(size / BYTES_PER_INODE, used * 1.1 + 1024)
    const inodesPerGroup = Math.ceil(wanted / groups / INODES_PER_BLOCK) * INODES_PER_BLOCK
    if (inodesPerGroup > BLOCKS_PER_GROUP) throw this.#tooSmall(size)

    const tables = this.#file.allocateNew((groups * inodesPerGroup) / INODES_PER_BLOCK)
    const blockBitmaps = this.#file.allocateNew(groups)
    const inodeBitmaps = this.#file.allocateNew(groups)
    const journal = this.#file.allocateNew(journalBlocks(blocks))
    if (this.#file.next > blocks) throw this.#tooSmall(size)
    this.#file.writeAt(journal.start, encodeJournal(journal.count, this.#uuid))
    const journalInode = this.#writeInodes(tables, journal)
    // From here on no block is allocated.
    if (this.#file.next > blocks) throw this.#tooSmall(size)

    const usedBlocks = this.#writeBlockBitmaps(blockBitmaps, groups, blocks)
    this.#writeInodeBitmaps(inodeBitmaps, groups, inodesPerGroup, used)
    const descriptors = Buffer.alloc(groups * GROUP_DESCRIPTOR_BYTES)
    const directories = this.#directoriesByGroup(inodesPerGroup)
    let freeBlocks = 0
    for (let group = 0; group < groups; group++) {
      const inGroup = Math.min(BLOCKS_PER_GROUP, blocks - group * BLOCKS_PER_GROUP)
      const free = inGroup - (usedBlocks[group] ?? 0)
      freeBlocks += free
      const at = group * GROUP_DESCRIPTOR_BYTES
      descriptors.writeUInt32LE(blockBitmaps.start + group, at)
      descriptors.writeUInt32LE(inodeBitmaps.start + group, at + 4)
      descriptors.writeUInt32LE(tables.start + (group * inodesPerGroup) / INODES_PER_BLOCK, at + 8)
      descriptors.writeUInt16LE(free, at + 12)
      descriptors.writeUInt16LE(inodesPerGroup - usedInGroup(used, group, inodesPerGroup), at + 14)
      descriptors.writeUInt16LE(directories.get(group) ?? 0, at + 16)
    }
    this.#file.writeAt(1, descriptors)
    const inodes = groups * inodesPerGroup
    // e2fsck takes a time to come for damage.
    const madeAt = Math.max(1, Math.floor(Math.min(this.#root.attributes.mtime.seconds, Date.now() / 1000)))
    const superblock = { blocks, freeBlocks, inodes, freeInodes: inodes - used, inodesPerGroup, madeAt }
    this.#file.writeAt(0, encodeSuperblock({ ...superblock, uuid: this.#uuid, journal: journalInode }))
    return size
  }

  /** Numbers the directory and all below it; gives its number. */
  #number(directory: Directory, own: number, parent: number, path: ByteString): void {
    const numbered: Numbered = { number: own, source: directory, links: 2, entries: [] }
    this.#inodes.push(numbered)
    numbered.entries.push(
      { name: '.', kind: 'directory', inode: own },
      { name: '..', kind: 'directory', inode: parent },
    )
    for (const [name, node] of [...directory.children].sort(([a], [b]) => (a < b ? -1 : 1))) {
      const below = `${path}/${name}`
      if (node.kind === 'directory') {
        const number = this.#nextInode++
        numbered.links++
        numbered.entries.push({ name, kind: 'directory', inode: number })
        this.#number(node, number, own, below)
        continue
      }
      const { inode } = node
      let known = this.#byInode.get(inode)
      if (known === undefined) {
        if (inode.links > MAX_LINKS)
          throw new IceboxError(
            'ImageInvalid',
            `${readable(below)} has ${inode.links} hard links, which ext4 cannot hold`,
          )
        known = { number: this.#nextInode++, source: inode, links: inode.links, entries: [] }
        this.#byInode.set(inode, known)
        this.#inodes.push(known)
      }
      numbered.entries.push({ name, kind: inode.kind, inode: known.number })
    }
  }

  /** Writes inodes and what they point to except contents. Gives the journal's inode. */
  #writeInodes(tables: Run, journal: Run): Buffer {
    const allocate = (content: Buffer): number => {
      const { start } = this.#file.allocate(blocksOf(content.length))
      this.#file.writeAt(start, content)
      return start
    }
    const size = journal.count * BLOCK_BYTES
    const private_: Attributes = { mode: 0o600, uid: 0, gid: 0, mtime: EPOCH, xattrs: [] }
    const fields = { kind: 'file', attributes: private_, links: 1, size, run: journal } as const
    const journalInode = encodeInode(fields, allocate)
    const ordered = this.#inodes.sort((a, b) => a.number - b.number)
    let batch = Buffer.alloc(BATCH * INODE_BYTES)
    journalInode.copy(batch, (JOURNAL_INODE - 1) * INODE_BYTES)
    let from = 0
    let filled = JOURNAL_INODE
    for (const one of ordered) {
      while (one.number > from + BATCH) {
        this.#file.writeAt(tables.start + from / INODES_PER_BLOCK, batch)
        batch = Buffer.alloc(BATCH * INODE_BYTES)
        from += BATCH
      }
      this.#encode(one, allocate).copy(batch, (one.number - 1 - from) * INODE_BYTES)
      filled = one.number - from
    }
    const blocks = blocksOf(Math.max(filled, JOURNAL_INODE) * INODE_BYTES)
    this.#file.writeAt(tables.start + from / INODES_PER_BLOCK, batch.subarray(0, blocks * BLOCK_BYTES))
    return journalInode
  }

  #encode({ source, links, entries }: Numbered, allocate: (content: Buffer) => number): Buffer {
    if (source.kind === 'directory') {
      const content = encodeDirectory(entries)
      const run = { start: allocate(content), count: content.length / BLOCK_BYTES }
      return encodeInode(
        { kind: 'directory', attributes: source.attributes, links, size: content.length, run },
        allocate,
      )
    }
    const { kind, size, run, target, major, minor } = source
    const common = { kind, attributes: source, links }
    if (kind === 'character' || kind === 'block')
      return encodeInode({ ...common, size: 0, run: undefined, device: { major, minor } }, allocate)
    if (kind !== 'symlink') return encodeInode({ ...common, size, run }, allocate)
    const text = toBytes(target)
    if (text.length < FAST_SYMLINK_BYTES)
      return encodeInode({ ...common, size: text.length, run: undefined, inline: text }, allocate)
    return encodeInode({ ...common, size: text.length, run: { start: allocate(text), count: 1 } }, allocate)
  }

  /** Gives the blocks used in each group. */
  #writeBlockBitmaps(bitmaps: Run, groups: number, blocks: number): number[] {
    const last = Math.floor((this.#file.next - 1) / BLOCKS_PER_GROUP)
    const bits = Buffer.alloc((last + 1) * BLOCK_BYTES)
    setBits(bits, 0, 1 + descriptorBlocks(groups), true)
    setBits(bits, this.#file.reserved, this.#file.next, true)
    for (const { start, count } of this.#file.freed) setBits(bits, start, start + count, false)
    const used: number[] = []
    for (let group = 0; group <= last; group++) {
      const own = bits.subarray(group * BLOCK_BYTES, (group + 1) * BLOCK_BYTES)
      used.push(own.reduce((sum, byte) => sum + (ONES[byte] ?? 0), 0))
    }
    // Bits for blocks that do not exist are set.
    const rest = blocks % BLOCKS_PER_GROUP
    const ending = Buffer.alloc(BLOCK_BYTES)
    if (last === groups - 1) bits.copy(ending, 0, last * BLOCK_BYTES)
    if (rest > 0) setBits(ending, rest, BLOCKS_PER_GROUP, true)
    this.#file.writeAt(bitmaps.start, bits)
    if (rest > 0) this.#file.writeAt(bitmaps.start + groups - 1, ending)
    return used
  }

  #writeInodeBitmaps(bitmaps: Run, groups: number, inodesPerGroup: number, used: number): void {
    for (let group = 0; group < groups; group++) {
      const bits = Buffer.alloc(BLOCK_BYTES)
      setBits(bits, 0, usedInGroup(used, group, inodesPerGroup), true)
      setBits(bits, inodesPerGroup, BLOCKS_PER_GROUP, true)
      this.#file.writeAt(bitmaps.start + group, bits)
    }
  }

  #directoriesByGroup(inodesPerGroup: number): Map<number, number> {
    const count = new Map<number, number>()
    for (const { number, source } of this.#inodes) {
      const group = Math.floor((number - 1) / inodesPerGroup)
      if (source.kind === 'directory') count.set(group, (count.get(group) ?? 0) + 1)
    }
    return count
  }

  #defaultSize(inodes: number): number {
    const roomy = this.#file.next * BLOCK_BYTES * 1.25 + inodes * 2 * INODE_BYTES + DEFAULT_STEP_BYTES
    const size = Math.max(DEFAULT_MIN_BYTES, Math.ceil(roomy / DEFAULT_STEP_BYTES) * DEFAULT_STEP_BYTES)
    if (size <= MAX_DEFAULT_BYTES) return size
    throw new IceboxError('InvalidArgument', `the image has ${mebibytes(roomy)}, for which the size must be given`)
  }

  #tooSmall(size: number): IceboxError {
    const content = mebibytes(this.#file.next * BLOCK_BYTES)
    return new IceboxError(
      'InvalidArgument',
      `${mebibytes(size)} are too small for this image, which needs more than ${content} for ${this.#inodes.length} files`,
      { remedy: 'Ask for a larger size, or for none.' },
    )
  }
}

const usedInGroup = (used: number, group: number, inodesPerGroup: number): number =>
  Math.min(inodesPerGroup, Math.max(0, used - group * inodesPerGroup))

/** How many bits of a byte are set. */
const ONES = Uint8Array.from({ length: 256 }, (_, byte) => byte.toString(2).replaceAll('0', '').length)

function setBits(bits: Buffer, from: number, to: number, value: boolean): void {
  for (let bit = from; bit < to; ) {
    const byte = bit >> 3
    if ((bit & 7) === 0 && to - bit >= 8) {
      const whole = (to - bit) >> 3
      bits.fill(value ? 0xff : 0, byte, byte + whole)
      bit += whole * 8
      continue
    }
    const mask = 1 << (bit & 7)
    bits[byte] = value ? (bits[byte] ?? 0) | mask : (bits[byte] ?? 0) & ~mask
    bit++
  }
}
