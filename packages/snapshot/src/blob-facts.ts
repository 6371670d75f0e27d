import { lstat } from 'node:fs/promises'
import { z } from 'zod'
import { isMissing } from './durable.ts'
import type { Keyring } from './keyring.ts'
import { BlobName } from './manifest.ts'
import { Digest, seal, unseal } from './sealed.ts'

/**
 * What this machine knows of the bytes of one blob. Its modification time changes whenever anybody writes to it by ordinary
 * means, and its inode when it is copied, so that as long as both are equal a restore need not read it all. The time of the
 * inode's own change says nothing: it moves whenever a driver makes or removes a hard link to the blob.
 */
export const BlobFacts = z.strictObject({
  /** Length. */
  bytes: z.int().min(0),
  /** What it takes on the disk: less than its length when it has holes. */
  allocatedBytes: z.int().min(0),
  inode: z.string(),
  /** Nanoseconds since 1970, decimal. */
  modifiedNs: z.string(),
  /** Absent until it has been computed. */
  digest: Digest.optional(),
})
export type BlobFacts = z.infer<typeof BlobFacts>

const Version1 = z.strictObject({
  version: z.literal(1),
  /** Checksum of the manifest beside it. */
  manifest: Digest,
  blobs: z.record(BlobName, BlobFacts),
})
export type BlobsFile = z.infer<typeof Version1>

export const encodeBlobs = (file: BlobsFile, keyring: Keyring): string => seal(Version1.parse(file), keyring)
export const decodeBlobs = (text: string, what: string, keyring: Keyring): BlobsFile => {
  const { checksum: _, ...file } = unseal<BlobsFile>(text, { 1: Version1 }, what, keyring)
  return file
}

/** What can be seen of a blob without reading it; undefined when there is no such regular file. */
export async function observe(path: string): Promise<BlobFacts | undefined> {
  const found = await lstat(path, { bigint: true }).catch((thrown: unknown) => {
    if (isMissing(thrown)) return undefined
    throw thrown
  })
  if (!found?.isFile()) return undefined
  return {
    bytes: Number(found.size),
    allocatedBytes: Number(found.blocks) * 512,
    inode: String(found.ino),
    modifiedNs: String(found.mtimeNs),
  }
}

/** Nobody has written to the file in between, by ordinary means. */
export const untouched = (before: BlobFacts, now: BlobFacts): boolean =>
  before.bytes === now.bytes && before.inode === now.inode && before.modifiedNs === now.modifiedNs
