import { IceboxError } from '@icebox/model'
import { z } from 'zod'
import type { Keyring } from '../keyring.ts'
import { BlobName, decodeManifest } from '../manifest.ts'
import { Digest, seal, unseal } from '../sealed.ts'

/** Name of the first entry. */
export const INDEX = 'icebox.json'
export const INDEX_MAX_BYTES = 1_048_576

/** The first entry of an export; it announces all others. */
const Index = z.strictObject({
  version: z.literal(1),
  /** The text of the manifest. */
  manifest: z.string(),
  blobs: z.array(z.strictObject({ name: BlobName, bytes: z.int().min(0), digest: Digest })),
  extras: z.array(z.strictObject({ name: BlobName, bytes: z.int().min(0), digest: Digest })),
})
export type Index = z.infer<typeof Index>
export type Announced = Index['blobs'][number]

/** What an export holds after its first entry, by entry name. */
export const entriesOf = (index: Index): Map<string, Announced> =>
  new Map([
    ...index.blobs.map((blob) => [`blobs/${blob.name}`, blob] as const),
    ...index.extras.map((extra) => [`extras/${extra.name}`, extra] as const),
  ])

export const totalBytes = (index: Index): number =>
  [...index.blobs, ...index.extras].reduce((sum, each) => sum + each.bytes, 0)

export const encodeIndex = (index: Index, keyring: Keyring): string => seal(Index.parse(index), keyring)

/** Throws SnapshotCorrupt, SnapshotUntrusted, SnapshotIncompatible (of a newer Icebox), NotImplemented. */
export function decodeIndex(text: string, keyring: Keyring): Index {
  const { checksum: _, ...index } = unseal<Index>(text, { 1: Index }, `${INDEX} in the file`, keyring)
  const { blobs, needs } = decodeManifest(index.manifest, keyring, `the manifest in the file`)
  if (needs.length > 0)
    throw new IceboxError('NotImplemented', `the snapshot in the file needs blobs of others, which are not in it`)
  const bytes = new Map(index.blobs.map((blob) => [blob.name, blob.bytes]))
  if (blobs.length !== index.blobs.length || blobs.some((blob) => bytes.get(blob.name) !== blob.bytes))
    throw new IceboxError('SnapshotCorrupt', `${INDEX} in the file does not belong to its manifest`)
  return index
}
