import { BLOCK_BYTES } from '../contents.ts'
import {
  BLOCKS_PER_GROUP,
  FEATURES_COMPATIBLE,
  FEATURES_INCOMPATIBLE,
  FEATURES_READ_ONLY,
  FIRST_INODE,
  INODE_BYTES,
  JOURNAL_INODE,
} from './format.ts'

const OFFSET = 1024
const JOURNAL_MAGIC = 0xc03b3998
const JOURNAL_SUPERBLOCK = 4

export interface Superblock {
  blocks: number
  freeBlocks: number
  inodes: number
  freeInodes: number
  inodesPerGroup: number
  /** Seconds since 1970. */
  madeAt: number
  uuid: Uint8Array
  /** The inode of the journal, which is kept here once more. */
  journal: Buffer
}

/** The first block. */
export function encodeSuperblock(fields: Superblock): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES)
  const bytes = block.subarray(OFFSET)
  const numbers: [offset: number, value: number][] = [
    [0, fields.inodes],
    [4, fields.blocks],
    [12, fields.freeBlocks],
    [16, fields.freeInodes],
    // Blocks of 1024 << 2 bytes, and no clusters.
    [24, 2],
    [28, 2],
    [32, BLOCKS_PER_GROUP],
    [36, BLOCKS_PER_GROUP],
    [40, fields.inodesPerGroup],
    [48, fields.madeAt],
    [64, fields.madeAt],
    // The revision with variable inodes.
    [76, 1],
    [84, FIRST_INODE],
    [92, FEATURES_COMPATIBLE],
    [96, FEATURES_INCOMPATIBLE],
    [100, FEATURES_READ_ONLY],
    [224, JOURNAL_INODE],
    [264, fields.madeAt],
    // Names are hashed as signed characters, as on x86.
    [352, 1],
  ]
  for (const [offset, value] of numbers) bytes.writeUInt32LE(value, offset)
  bytes.writeInt16LE(-1, 54)
  bytes.writeUInt16LE(0xef53, 56)
  // Clean; on errors go on.
  bytes.writeUInt16LE(1, 58)
  bytes.writeUInt16LE(1, 60)
  bytes.writeUInt16LE(INODE_BYTES, 88)
  bytes.set(fields.uuid, 104)
  // The seed of directory hashes, with half MD4.
  bytes.set(fields.uuid, 236)
  bytes.writeUInt8(1, 252)
  // What follows is the journal inode's block map and size.
  bytes.writeUInt8(1, 253)
  fields.journal.copy(bytes, 268, 40, 100)
  fields.journal.copy(bytes, 328, 108, 112)
  fields.journal.copy(bytes, 332, 4, 8)
  bytes.writeUInt16LE(32, 348)
  bytes.writeUInt16LE(32, 350)
  // Groups of metadata are of 16.
  bytes.writeUInt8(4, 372)
  return block
}

/** The first block of an empty journal. Its numbers are big endian. */
export function encodeJournal(blocks: number, uuid: Uint8Array): Buffer {
  const bytes = Buffer.alloc(BLOCK_BYTES)
  bytes.writeUInt32BE(JOURNAL_MAGIC, 0)
  bytes.writeUInt32BE(JOURNAL_SUPERBLOCK, 4)
  bytes.writeUInt32BE(BLOCK_BYTES, 12)
  bytes.writeUInt32BE(blocks, 16)
  // The log starts after this block, with transaction 1, and has none.
  bytes.writeUInt32BE(1, 20)
  bytes.writeUInt32BE(1, 24)
  bytes.set(uuid, 48)
  bytes.writeUInt32BE(1, 64)
  return bytes
}

/** Blocks of a journal for a file system of so many, as mke2fs has it. */
export function journalBlocks(blocks: number): number {
  const steps: [below: number, journal: number][] = [
    [32_768, 1024],
    [262_144, 4096],
    [524_288, 8192],
    [4_194_304, 16_384],
    [8_388_608, 32_768],
    [16_777_216, 65_536],
    [33_554_432, 131_072],
  ]
  return steps.find(([below]) => blocks < below)?.[1] ?? 262_144
}
