import { BLOCK_BYTES, blocksOf } from '../contents.ts'
import { type ByteString, toBytes } from '../entry.ts'
import { ENTRY_TYPES, type StoredKind } from '../modes.ts'

const HEADER_BYTES = 8

export interface DirectoryEntry {
  name: ByteString
  kind: StoredKind
  inode: number
}

const recordBytes = ({ name }: { name: ByteString }): number => HEADER_BYTES + Math.ceil(name.length / 4) * 4

/** The content of a directory in whole blocks: `.`, `..` and the entries in the order given, which has no meaning. */
export function encodeDirectory(entries: DirectoryEntry[]): Buffer {
  const bytes = Buffer.alloc(directoryBlocks(entries) * BLOCK_BYTES)
  let at = 0
  for (const [i, entry] of entries.entries()) {
    const own = recordBytes(entry)
    const following = entries[i + 1]
    const room = BLOCK_BYTES - (at % BLOCK_BYTES)
    // The last record of a block reaches to its end.
    const length = following === undefined || own + recordBytes(following) > room ? room : own
    bytes.writeUInt32LE(entry.inode, at)
    bytes.writeUInt16LE(length, at + 4)
    bytes.writeUInt8(entry.name.length, at + 6)
    bytes.writeUInt8(ENTRY_TYPES[entry.kind], at + 7)
    toBytes(entry.name).copy(bytes, at + HEADER_BYTES)
    at += length
  }
  return bytes
}

/** How many blocks it takes, which the names alone say. */
export function directoryBlocks(entries: readonly { name: ByteString }[]): number {
  let at = 0
  for (const entry of entries) {
    const own = recordBytes(entry)
    if (own > BLOCK_BYTES - (at % BLOCK_BYTES)) at = blocksOf(at) * BLOCK_BYTES
    at += own
  }
  return blocksOf(at)
}
