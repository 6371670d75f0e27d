/** What the reader and the writer of EROFS share. Layout: fs/erofs/erofs_fs.h of Linux. All numbers are little endian. */

export const SUPERBLOCK_OFFSET = 1024
export const SUPERBLOCK_BYTES = 128
export const EROFS_MAGIC = 0xe0f5e1e2
export const SLOT_BYTES = 32
export const EXTENDED_INODE_BYTES = 64
export const DIRENT_BYTES = 12
/** Bit 0 of an inode's format says that it is an extended one; the bits from 1 on how its content lies. */
export const EXTENDED = 1
/** In blocks of its own. */
export const FLAT_PLAIN = 0
/** In blocks of its own, but the tail right after the inode. */
export const FLAT_INLINE = 2

/**
 * gVisor refuses inodes that have extended attributes, so ours have none. They are kept behind the file system, where nobody
 * else looks: JSON of `[path, name, value]` with path and value in base64, then its length (8 bytes) and this mark.
 */
export const ATTRIBUTES_MARK = Buffer.from('ICEBOXXA')
export const ATTRIBUTES_FOOTER_BYTES = 16

/** Of all of them, as kept: they are read whole by whoever runs the image. */
export const MAX_ATTRIBUTES_BYTES = 4_194_304
