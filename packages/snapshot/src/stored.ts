import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { IceboxError, type SnapshotId } from '@icebox/model'
import { type BlobFacts, type BlobsFile, decodeBlobs, encodeBlobs } from './blob-facts.ts'
import { isMissing, replaceSynced } from './durable.ts'
import type { Keyring } from './keyring.ts'
import { decodeManifest, type Manifest } from './manifest.ts'

export const MANIFEST = 'manifest.json'
export const BLOBS = 'blobs.json'
/** What `writeBlobs` may leave when it is killed. */
export const BLOBS_DRAFT = 'blobs.json.new'
/** The directory that a driver writes and reads: nothing but its own files. */
export const FILES = 'files'

/** A complete snapshot in its directory. */
export interface Stored {
  readonly directory: string
  readonly manifest: Manifest
  readonly blobs: Record<string, BlobFacts>
}

export const blobPath = (directory: string, name: string): string => join(directory, FILES, name)

async function read(directory: string, name: string, id: string): Promise<string> {
  try {
    return await readFile(join(directory, name), 'utf8')
  } catch (thrown) {
    if (isMissing(thrown)) throw new IceboxError('SnapshotCorrupt', `snapshot ${id} has no ${name}`, { cause: thrown })
    throw thrown
  }
}

/** Throws SnapshotCorrupt, SnapshotUntrusted, SnapshotIncompatible (written by a newer Icebox). */
export async function readManifest(directory: string, id: SnapshotId, keyring: Keyring): Promise<Manifest> {
  const what = `the manifest of snapshot ${id}`
  const manifest = decodeManifest(await read(directory, MANIFEST, id), keyring, what)
  if (manifest.id !== id) throw new IceboxError('SnapshotCorrupt', `${what} is that of snapshot ${manifest.id}`)
  return manifest
}

export async function readBlobs(
  directory: string,
  manifest: Manifest,
  keyring: Keyring,
): Promise<Record<string, BlobFacts>> {
  const what = `${BLOBS} of snapshot ${manifest.id}`
  const file = decodeBlobs(await read(directory, BLOBS, manifest.id), what, keyring)
  const names = manifest.blobs.map((blob) => blob.name)
  if (file.manifest !== manifest.checksum || names.some((name) => !file.blobs[name]))
    throw new IceboxError('SnapshotCorrupt', `${what} does not belong to its manifest`)
  return file.blobs
}

export async function readStored(directory: string, id: SnapshotId, keyring: Keyring): Promise<Stored> {
  const manifest = await readManifest(directory, id, keyring)
  return { directory, manifest, blobs: await readBlobs(directory, manifest, keyring) }
}

/** Replaces what is known of the bytes; a crash leaves the old or the new. */
export async function writeBlobs(stored: Stored, blobs: Record<string, BlobFacts>, keyring: Keyring): Promise<void> {
  const file: BlobsFile = { version: 1, manifest: stored.manifest.checksum, blobs }
  const { directory } = stored
  await replaceSynced(join(directory, BLOBS), encodeBlobs(file, keyring), join(directory, BLOBS_DRAFT))
}
