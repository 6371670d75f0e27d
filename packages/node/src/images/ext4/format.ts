/**
 * The parts of ext4 that are written here. Layout: Documentation/filesystems/ext4 of Linux. All numbers are little endian,
 * except those of the journal.
 */

export const BLOCKS_PER_GROUP = 32_768
export const INODE_BYTES = 256
export const GROUP_DESCRIPTOR_BYTES = 32

export const ROOT_INODE = 2
export const JOURNAL_INODE = 8
export const FIRST_INODE = 11

export const EXTENTS_FLAG = 0x80000
/** More hard links than this to one file are not possible; of directories the count is then given as 1. */
export const MAX_LINKS = 65_000

/** Compatible: a journal, xattrs, hashed directories (for those the guest makes), backups of the superblock only as listed: none. */
export const FEATURES_COMPATIBLE = 0x4 | 0x8 | 0x20 | 0x200
/** Needed to read: types in directory entries, extents, and group metadata anywhere. */
export const FEATURES_INCOMPATIBLE = 0x2 | 0x40 | 0x200
/** Needed to write: large and huge files, directories with many subdirectories, times beyond 2038. */
export const FEATURES_READ_ONLY = 0x2 | 0x8 | 0x20 | 0x40
