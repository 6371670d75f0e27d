import { IceboxError, type SnapshotFault, type SnapshotId } from '@icebox/model'
import { type BlobFacts, observe, untouched } from './blob-facts.ts'
import type { Digester } from './digester.ts'
import { digestFile } from './hash.ts'
import type { Keyring } from './keyring.ts'
import { BLOBS, blobPath, MANIFEST, readBlobs, readManifest, type Stored, writeBlobs } from './stored.ts'

const corrupt = (id: SnapshotId, blob: string, problem: string, remedy?: string) =>
  new IceboxError('SnapshotCorrupt', `blob ${blob} of snapshot ${id} ${problem}`, { ...(remedy && { remedy }) })

/** The blob as it is now, which must be there with its length. */
async function present({ directory, manifest }: Stored, blob: { name: string; bytes: number }): Promise<BlobFacts> {
  const now = await observe(blobPath(directory, blob.name))
  if (!now) throw corrupt(manifest.id, blob.name, 'is missing')
  if (now.bytes !== blob.bytes)
    throw corrupt(manifest.id, blob.name, `has ${now.bytes} bytes, and ${blob.bytes} were saved`)
  return now
}

/**
 * Before a restore: every blob is there with its length, and nobody has written to it. A blob whose inode or time differs
 * (the data directory was copied, or somebody wrote) is read whole and accepted when its digest is the one known. Without a
 * known digest there is nothing to compare with, and it is refused. A bit that flipped on the disk by itself changes no
 * time: only `verify` finds that.
 * Throws SnapshotCorrupt.
 */
export async function checkBeforeRestore(stored: Stored, keyring: Keyring, signal: AbortSignal): Promise<void> {
  const { directory, manifest } = stored
  const changed: Record<string, BlobFacts> = {}
  for (const blob of manifest.blobs) {
    const now = await present(stored, blob)
    const before = stored.blobs[blob.name]
    if (before && untouched(before, now)) continue
    if (!before?.digest)
      throw corrupt(
        manifest.id,
        blob.name,
        'was copied or changed before its digest was known, so it cannot be told from a damaged one',
        'If the data directory was copied: start the server once on the original, so that digests get computed, stop it and copy again.',
      )
    const digest = await digestFile(blobPath(directory, blob.name), signal)
    if (digest !== before.digest)
      throw corrupt(manifest.id, blob.name, 'was changed after it was saved: its digest differs')
    changed[blob.name] = { ...now, digest }
  }
  if (Object.keys(changed).length > 0) await writeBlobs(stored, { ...stored.blobs, ...changed }, keyring)
}

/**
 * All digests by name; computes those not known yet. Throws SnapshotCorrupt when somebody has written to a blob since it
 * was saved; the digests of the others are kept.
 */
export async function addDigests(stored: Stored, digester: Digester, keyring: Keyring): Promise<Map<string, string>> {
  const digests = new Map<string, string>()
  const added: Record<string, BlobFacts> = {}
  let failure: unknown
  for (const blob of stored.manifest.blobs) {
    const saved = stored.blobs[blob.name]
    if (saved?.digest) {
      digests.set(blob.name, saved.digest)
      continue
    }
    try {
      const digest = await digester.digest(blobPath(stored.directory, blob.name))
      // Looked at afterwards, so that what was written meanwhile is seen too.
      const now = await present(stored, blob)
      if (!saved || !untouched(saved, now))
        throw corrupt(stored.manifest.id, blob.name, 'was changed before its digest was known')
      added[blob.name] = { ...saved, digest }
      digests.set(blob.name, digest)
    } catch (thrown) {
      failure ??= thrown
    }
  }
  if (Object.keys(added).length > 0) await writeBlobs(stored, { ...stored.blobs, ...added }, keyring)
  if (failure) throw failure
  return digests
}

/** Rereads everything from the disk. Each fault once; empty: all is well. */
export async function verify(
  directory: string,
  id: SnapshotId,
  keyring: Keyring,
  signal: AbortSignal,
): Promise<SnapshotFault[]> {
  const fault = (blob: string, thrown: unknown): SnapshotFault[] => {
    if (thrown instanceof IceboxError) return [{ blob, problem: thrown.message }]
    throw thrown
  }
  let stored: Stored
  try {
    stored = { directory, manifest: await readManifest(directory, id, keyring), blobs: {} }
  } catch (thrown) {
    return fault(MANIFEST, thrown)
  }
  const faults: SnapshotFault[] = []
  try {
    stored = { ...stored, blobs: await readBlobs(directory, stored.manifest, keyring) }
  } catch (thrown) {
    faults.push(...fault(BLOBS, thrown))
  }
  for (const blob of stored.manifest.blobs) {
    try {
      await present(stored, blob)
      const known = stored.blobs[blob.name]?.digest
      const digest = await digestFile(blobPath(directory, blob.name), signal)
      if (!known) faults.push({ blob: blob.name, problem: `blob ${blob.name} has no digest to compare with` })
      else if (digest !== known)
        faults.push({ blob: blob.name, problem: `blob ${blob.name} has digest ${digest}, and ${known} was saved` })
    } catch (thrown) {
      faults.push(...fault(blob.name, thrown))
    }
  }
  return faults
}
