import { IceboxError } from '@icebox/model'
import { BLOCK_BYTES, blocksOf, type ContentFile } from '../contents.ts'
import { type Attributes, type ByteString, toBytes } from '../entry.ts'
import { ENTRY_TYPES, packDevice, type StoredKind, TYPE_BITS } from '../modes.ts'
import type { Directory, Inode } from '../tree.ts'
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

/** Blocks before the contents: the superblock's. */
export const EROFS_RESERVED_BLOCKS = 1

/** An inode with its place in the metadata. */
interface Placed {
  source: Inode | Directory
  kind: StoredKind
  attributes: Attributes
  links: number
  size: number
  /** In units of 32 bytes from the start of the metadata. */
  nid: number
  /** The content of directories and symbolic links, filled in when all places are known. */
  content: Buffer | undefined
  /** Bytes of `content` that lie right after the inode, and the first block of the rest. */
  tail: number
  block: number
}

interface Name {
  name: ByteString
  placed: Placed
}

/**
 * Completes an EROFS file whose contents are written: not compressed, regular files in whole blocks of their own (gVisor
 * maps them), 64-byte inodes. The same tree gives the same bytes. Gives the size of the file in bytes.
 */
export function writeErofs(root: Directory, file: ContentFile, uuid: Uint8Array): number {
  const layout = new Layout(file)
  const top = layout.visit(root, undefined)
  const metadata = file.allocate(blocksOf(layout.bytes))
  const inodes = Buffer.alloc(metadata.count * BLOCK_BYTES)
  for (const [i, placed] of layout.placed.entries()) {
    if (placed.source.kind === 'directory') placed.content = directoryBytes(layout.namesOf(placed.source))
    writeInode(inodes.subarray(placed.nid * SLOT_BYTES), placed, i + 1)
    if (placed.content !== undefined && placed.content.length > placed.tail)
      file.writeAt(placed.block, placed.content.subarray(0, placed.content.length - placed.tail))
  }
  file.writeAt(metadata.start, inodes)
  const blocks = file.next
  file.writeAt(0, superblock(top, layout.placed.length, blocks, metadata.start, uuid))
  return blocks * BLOCK_BYTES + writeAttributes(root, file)
}

class Layout {
  readonly placed: Placed[] = []
  /** Of the metadata so far. The first inode must not have the number 0, which programs take for none. */
  bytes = EXTENDED_INODE_BYTES
  readonly #file: ContentFile
  readonly #byInode = new Map<Inode, Placed>()
  readonly #names = new Map<Directory, Name[]>()

  constructor(file: ContentFile) {
    this.#file = file
  }

  namesOf(directory: Directory): Name[] {
    return this.#names.get(directory) ?? []
  }

  visit(directory: Directory, parent: Placed | undefined): Placed {
    const children = [...directory.children].map(([name, node]) => ({ name, node }))
    const size = directorySize([...children.map(({ name }) => name), '.', '..'])
    const own = this.#place(directory, 'directory', directory.attributes, 2, size, undefined)
    const names: Name[] = [
      { name: '.', placed: own },
      { name: '..', placed: parent ?? own },
    ]
    for (const { name, node } of children) {
      const placed = node.kind === 'directory' ? this.visit(node, own) : this.#leaf(node.inode)
      if (node.kind === 'directory') own.links++
      names.push({ name, placed })
    }
    this.#names.set(directory, names.sort(byName))
    return own
  }

  #leaf(inode: Inode): Placed {
    const known = this.#byInode.get(inode)
    if (known !== undefined) return known
    const content = inode.kind === 'symlink' ? toBytes(inode.target) : undefined
    const placed = this.#place(inode, inode.kind, inode, inode.links, content?.length ?? inode.size, content)
    this.#byInode.set(inode, placed)
    return placed
  }

  #place(
    source: Inode | Directory,
    kind: StoredKind,
    attributes: Attributes,
    links: number,
    size: number,
    content: Buffer | undefined,
  ): Placed {
    // Regular files lie in blocks of their own already.
    const rest = size % BLOCK_BYTES
    const tail = kind !== 'file' && rest + EXTENDED_INODE_BYTES <= BLOCK_BYTES ? rest : 0
    const blocks = kind === 'file' ? 0 : blocksOf(size - tail)
    const block = blocks > 0 ? this.#file.allocate(blocks).start : source.kind === 'file' ? (source.run?.start ?? 0) : 0
    const bytes = EXTENDED_INODE_BYTES + tail
    // An inode and its tail are read as one piece.
    if ((this.bytes % BLOCK_BYTES) + bytes > BLOCK_BYTES) this.bytes = blocksOf(this.bytes) * BLOCK_BYTES
    const nid = this.bytes / SLOT_BYTES
    this.bytes += Math.ceil(bytes / SLOT_BYTES) * SLOT_BYTES
    const placed = { source, kind, attributes, links, size, nid, content, tail, block }
    this.placed.push(placed)
    return placed
  }
}

const byName = (a: { name: ByteString }, b: { name: ByteString }): number => (a.name < b.name ? -1 : 1)

/** Names by the block they are in, each block as full as it gets. They must be sorted. */
function inBlocks<T extends { name: ByteString }>(names: T[]): T[][] {
  const blocks: T[][] = []
  let room = 0
  for (const entry of names) {
    const bytes = DIRENT_BYTES + entry.name.length
    if (bytes > room) {
      blocks.push([])
      room = BLOCK_BYTES
    }
    blocks.at(-1)?.push(entry)
    room -= bytes
  }
  return blocks
}

const bytesOf = (block: { name: ByteString }[]): number =>
  block.reduce((bytes, { name }) => bytes + DIRENT_BYTES + name.length, 0)

function directorySize(names: ByteString[]): number {
  const blocks = inBlocks(names.map((name) => ({ name })).sort(byName))
  return (blocks.length - 1) * BLOCK_BYTES + bytesOf(blocks.at(-1) ?? [])
}

function directoryBytes(names: Name[]): Buffer {
  const blocks = inBlocks(names)
  const bytes = Buffer.alloc((blocks.length - 1) * BLOCK_BYTES + bytesOf(blocks.at(-1) ?? []))
  for (const [i, block] of blocks.entries()) {
    const base = i * BLOCK_BYTES
    let nameAt = block.length * DIRENT_BYTES
    for (const [j, { name, placed }] of block.entries()) {
      const at = base + j * DIRENT_BYTES
      bytes.writeBigUInt64LE(BigInt(placed.nid), at)
      bytes.writeUInt16LE(nameAt, at + 8)
      bytes.writeUInt8(ENTRY_TYPES[placed.kind], at + 10)
      bytes.write(name, base + nameAt, 'latin1')
      nameAt += name.length
    }
  }
  return bytes
}

function writeInode(into: Buffer, placed: Placed, number: number): void {
  const { source, kind, attributes, links, size, content, tail, block } = placed
  const { seconds, nanoseconds } = attributes.mtime
  const device = kind === 'character' || kind === 'block'
  into.writeUInt16LE(EXTENDED | ((tail > 0 ? FLAT_INLINE : FLAT_PLAIN) << 1), 0)
  into.writeUInt16LE(TYPE_BITS[kind] | attributes.mode, 4)
  into.writeBigUInt64LE(BigInt(size), 8)
  into.writeUInt32LE(device && source.kind !== 'directory' ? packDevice(source.major, source.minor) : block, 16)
  into.writeUInt32LE(number, 20)
  into.writeUInt32LE(attributes.uid, 24)
  into.writeUInt32LE(attributes.gid, 28)
  into.writeBigInt64LE(BigInt(seconds), 32)
  into.writeUInt32LE(nanoseconds, 40)
  into.writeUInt32LE(links, 44)
  if (content !== undefined && tail > 0) content.copy(into, EXTENDED_INODE_BYTES, content.length - tail)
}

function superblock(root: Placed, inodes: number, blocks: number, metadata: number, uuid: Uint8Array): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES)
  const bytes = block.subarray(SUPERBLOCK_OFFSET, SUPERBLOCK_OFFSET + SUPERBLOCK_BYTES)
  bytes.writeUInt32LE(EROFS_MAGIC, 0)
  bytes.writeUInt8(Math.log2(BLOCK_BYTES), 12)
  bytes.writeUInt16LE(root.nid, 14)
  bytes.writeBigUInt64LE(BigInt(inodes), 16)
  bytes.writeBigUInt64LE(BigInt(Math.max(0, root.attributes.mtime.seconds)), 24)
  bytes.writeUInt32LE(blocks, 36)
  bytes.writeUInt32LE(metadata, 40)
  bytes.set(uuid, 48)
  return block
}

/** Gives the bytes written behind the file system. */
function writeAttributes(root: Directory, file: ContentFile): number {
  const found: string[] = []
  let bytes = 0
  const seen = new Set<Inode>()
  const collect = ({ xattrs }: Attributes, path: ByteString) => {
    for (const { name, value } of xattrs) {
      const one = JSON.stringify([toBytes(path).toString('base64'), name, Buffer.from(value).toString('base64')])
      found.push(one)
      bytes += Buffer.byteLength(one) + 1
      if (bytes >= MAX_ATTRIBUTES_BYTES)
        throw new IceboxError(
          'ImageInvalid',
          `the extended attributes of the image take more than ${MAX_ATTRIBUTES_BYTES} bytes`,
        )
    }
  }
  const visit = (directory: Directory, path: ByteString): void => {
    collect(directory.attributes, path === '' ? '/' : path)
    for (const [name, node] of [...directory.children].sort(([a], [b]) => (a < b ? -1 : 1)))
      if (node.kind === 'directory') visit(node, `${path}/${name}`)
      else if (!seen.has(node.inode)) {
        seen.add(node.inode)
        collect(node.inode, `${path}/${name}`)
      }
  }
  visit(root, '')
  if (found.length === 0) return 0
  const text = Buffer.from(`[${found.join(',')}]`)
  const footer = Buffer.alloc(ATTRIBUTES_FOOTER_BYTES)
  footer.writeBigUInt64LE(BigInt(text.length), 0)
  ATTRIBUTES_MARK.copy(footer, 8)
  file.append(Buffer.concat([text, footer]))
  return text.length + footer.length
}
