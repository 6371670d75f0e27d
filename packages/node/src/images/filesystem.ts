import { createHash } from 'node:crypto'
import { stat, truncate, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { IceboxError } from '@icebox/model'
import { hexOf } from './digest.ts'
import { syncFile } from './durable.ts'
import { runProgram } from './program.ts'
import { mebibytes, requireSpace } from './space.ts'
import type { Unpacked } from './unpack.ts'

const DEADLINE_MS = 3_600_000
const MIB = 1_048_576
const BYTES_PER_INODE = 16_384
const MIN_EXT4_BYTES = 16 * MIB
const MAX_EXT4_BYTES = 16 * MIB * MIB
const DEFAULT_MIN_BYTES = 1024 * MIB
const DEFAULT_STEP_BYTES = 64 * MIB

/** The same image gets the same UUID, so that making it again gives the same file as far as the tools allow. */
function uuidOf(digest: string): string {
  const hex = createHash('sha256').update(hexOf(digest)).digest('hex')
  return [hex.slice(0, 8), hex.slice(8, 12), `8${hex.slice(13, 16)}`, `8${hex.slice(17, 20)}`, hex.slice(20, 32)].join(
    '-',
  )
}

/** Makes a durable EROFS file of a tree. Gives its size in bytes. Throws `NoSpace`, `Unavailable`. */
export async function makeErofs(
  tree: string,
  unpacked: Unpacked,
  digest: string,
  output: string,
  signal: AbortSignal,
): Promise<number> {
  requireSpace(dirname(output), unpacked.bytes, 'the EROFS file of the image')
  // Without noinline_data gVisor cannot execute what lies in it.
  const args = ['-E', 'noinline_data', '-U', uuidOf(digest), '--preserve-mtime', '--quiet', output, tree]
  const options = { packageName: 'erofs-utils', doing: 'making the EROFS file of the image', deadlineMs: DEADLINE_MS }
  await runProgram('mkfs.erofs', args, options, signal)
  await syncFile(output)
  return (await stat(output)).size
}

/**
 * Makes a durable, sparse ext4 file of a tree: `sizeBytes` as given (rounded down to 4 KiB), or enough to hold it and a quarter
 * more, at least 1 GiB. Gives its size. Throws `InvalidArgument` when the tree does not fit, `NoSpace`, `Unavailable`.
 */
export async function makeExt4(
  tree: string,
  unpacked: Unpacked,
  digest: string,
  output: string,
  sizeBytes: number | undefined,
  signal: AbortSignal,
): Promise<number> {
  const size = ext4Size(unpacked, sizeBytes)
  requireSpace(dirname(output), unpacked.bytes, 'the ext4 file of the image')
  const uuid = uuidOf(digest)
  const inodes = Math.ceil(Math.max(size / BYTES_PER_INODE, unpacked.entries * 1.25 + 1024))
  // Tables and journal are zero already in a new sparse file: said so, a guest need not write them again after its first mount.
  const extended = `hash_seed=${uuid},lazy_itable_init=0,lazy_journal_init=0,nodiscard`
  const args = ['-q', '-F', '-t', 'ext4', '-m', '0', '-U', uuid, '-E', extended, '-N', `${inodes}`, '-d', tree, output]
  await writeFile(output, '')
  await truncate(output, size)
  try {
    const options = { packageName: 'e2fsprogs', doing: 'making the ext4 file of the image', deadlineMs: DEADLINE_MS }
    await runProgram('mke2fs', args, options, signal)
  } catch (thrown) {
    if (
      !(thrown instanceof IceboxError) ||
      !/Could not allocate|too (big|small)|No space left|while (populating|allocating)/.test(thrown.message)
    )
      throw thrown
    throw tooSmall(size, unpacked, thrown)
  }
  await syncFile(output)
  return size
}

/** Throws `InvalidArgument` for a size that the tree cannot fit. */
export function ext4Size({ bytes, entries }: Unpacked, wanted: number | undefined): number {
  if (wanted === undefined) {
    const roomy = bytes * 1.25 + entries * 512 + 64 * MIB
    return Math.max(DEFAULT_MIN_BYTES, Math.ceil(roomy / DEFAULT_STEP_BYTES) * DEFAULT_STEP_BYTES)
  }
  if (!Number.isInteger(wanted) || wanted < MIN_EXT4_BYTES || wanted > MAX_EXT4_BYTES)
    throw new IceboxError(
      'InvalidArgument',
      `an ext4 file of ${wanted} bytes cannot be made: 16 MiB to 16 TiB are possible`,
    )
  const size = wanted - (wanted % 4096)
  if (size < bytes) throw tooSmall(size, { bytes, entries })
  return size
}

const tooSmall = (size: number, { bytes, entries }: Unpacked, cause?: unknown): IceboxError =>
  new IceboxError(
    'InvalidArgument',
    `${mebibytes(size)} are too small for this image, which has ${mebibytes(bytes)} in ${entries} files`,
    { cause, remedy: 'Ask for a larger size, or for none.' },
  )
