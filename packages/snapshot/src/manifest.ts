import { isId, Size, SNAPSHOT_KINDS, type SnapshotId } from '@icebox/model'
import { z } from 'zod'
import type { Keyring } from './keyring.ts'
import { Digest, seal, unseal } from './sealed.ts'

const Id = z.custom<SnapshotId>((value) => typeof value === 'string' && isId(value), 'must be an id')

/** A plain file name: never a path, never hidden. */
export const BlobName = z
  .string()
  .max(128)
  .regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/)

/** What ran the machine. For `kind: memory` the same is needed to restore it; see `gate`. */
export const DriverFacts = z.strictObject({
  name: z.string(),
  version: z.string(),
  /** Of the program that runs machines. */
  digest: z.string(),
  /** Flags that a restore must be given too. */
  flags: z.array(z.string()),
  /** CPU features the guest could see and may be using, as /proc/cpuinfo names them. */
  cpuFeatures: z.array(z.string()),
})
export type DriverFacts = z.infer<typeof DriverFacts>

const distinct = (names: string[]): boolean => new Set(names).size === names.length

const Version1 = z.strictObject({
  version: z.literal(1),
  id: Id,
  kind: z.enum(SNAPSHOT_KINDS),
  driver: DriverFacts,
  size: z.strictObject(Size.shape),
  /** `sha256:<hex>` of the image below the machine's disk. */
  imageDigest: Digest,
  /** The agent inside the guest. */
  agent: z.strictObject({ version: z.string(), digest: z.string() }),
  /** The files of the snapshot, whole. */
  blobs: z
    .array(z.strictObject({ name: BlobName, bytes: z.int().min(0) }))
    .refine((blobs) => distinct(blobs.map((blob) => blob.name)), 'names must differ'),
  /** Blobs of other snapshots that a restore reads too. Empty: this snapshot stands alone. */
  needs: z.array(z.strictObject({ snapshot: Id, blob: BlobName })),
  /** `manifest` is the checksum of the parent's manifest; absent when the parent was gone already. */
  parent: z.strictObject({ id: Id, manifest: Digest.optional() }).optional(),
  /** Where it was before it was imported. */
  importedFrom: z.strictObject({ id: Id, manifest: Digest }).optional(),
  /** Name of the template that the line of this snapshot began with. */
  template: z.string().optional(),
  labels: z.record(z.string(), z.string()),
  /** Environment that execs in sandboxes restored from it begin with. */
  env: z.record(z.string(), z.string()),
  /** ISO 8601, UTC: when it was taken. */
  createdAt: z.iso.datetime(),
  expiresAt: z.iso.datetime().optional(),
})

/** What there is to know of a snapshot without its bytes. Never changes once written. */
export type ManifestContent = z.infer<typeof Version1>
/** `checksum` covers all the rest and names this very manifest. */
export type Manifest = ManifestContent & { checksum: string }

export const encodeManifest = (content: ManifestContent, keyring: Keyring): string =>
  seal(Version1.parse(content), keyring)

/** Throws SnapshotCorrupt, SnapshotUntrusted, SnapshotIncompatible (written by a newer Icebox). */
export const decodeManifest = (text: string, keyring: Keyring, what = 'the manifest'): Manifest =>
  unseal<ManifestContent>(text, { 1: Version1 }, what, keyring)
