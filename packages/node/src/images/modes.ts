import type { EntryKind } from './entry.ts'

export type StoredKind = Exclude<EntryKind, 'hardlink'>

/** The type of a file in the upper bits of its mode. */
export const TYPE_BITS: Readonly<Record<StoredKind, number>> = {
  fifo: 0o010000,
  character: 0o020000,
  directory: 0o040000,
  block: 0o060000,
  file: 0o100000,
  symlink: 0o120000,
}

/** The type of a file in a directory entry of ext4 and EROFS. */
export const ENTRY_TYPES: Readonly<Record<StoredKind, number>> = {
  file: 1,
  directory: 2,
  character: 3,
  block: 4,
  fifo: 5,
  symlink: 7,
}

export const KIND_OF_MODE: Readonly<Record<number, StoredKind>> = Object.fromEntries(
  Object.entries(TYPE_BITS).map(([kind, bits]) => [bits >> 12, kind as StoredKind]),
)

/** A device number as Linux packs it into 32 bits. */
export const packDevice = (major: number, minor: number): number =>
  ((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xfff00) << 12)) >>> 0
