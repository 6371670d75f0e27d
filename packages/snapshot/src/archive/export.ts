import { createHash, randomUUID } from 'node:crypto'
import { access, open, rename, rm, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { IceboxError, type Progress } from '@icebox/model'
import { type Pack, pack } from 'tar-stream'
import { sync } from '../durable.ts'
import { digestFile, readSlices } from '../hash.ts'
import type { Keyring } from '../keyring.ts'
import { encodeManifest } from '../manifest.ts'
import { allocatedBytes, claimSpace } from '../space.ts'
import { blobPath, type Stored } from '../stored.ts'
import { bytesOf } from './bytes.ts'
import { type Announced, encodeIndex, entriesOf, INDEX, type Index, totalBytes } from './index-entry.ts'

/** A further file in an export, such as the image below the snapshot. */
export interface ExtraFile {
  /** A plain file name. */
  name: string
  path: string
}

/** Writes the snapshot, whose digests are known, to a tar file. What is read is compared with them on the way. */
export async function exportSnapshot(
  { directory, manifest, blobs }: Stored,
  file: string,
  extras: ExtraFile[],
  keyring: Keyring,
  progress: Progress,
  signal: AbortSignal,
): Promise<void> {
  if (manifest.needs.length > 0)
    throw new IceboxError(
      'NotImplemented',
      `snapshot ${manifest.id} needs blobs of other snapshots, which an export cannot hold`,
    )
  if (await exists(file)) throw new IceboxError('AlreadyExists', `the file ${file} exists already`)
  const paths = new Map<string, string>([
    ...manifest.blobs.map(({ name }) => [`blobs/${name}`, blobPath(directory, name)] as const),
    ...extras.map(({ name, path }) => [`extras/${name}`, path] as const),
  ])
  const draft = `${file}.${randomUUID()}.partial`
  const target = await open(draft, 'wx', 0o600).catch((thrown: unknown) => {
    throw new IceboxError('InvalidArgument', `${file} cannot be written: ${String(thrown)}`, { cause: thrown })
  })
  try {
    const index = await announce({ directory, manifest, blobs }, extras, keyring, signal)
    const total = totalBytes(index)
    using _ = claimSpace(dirname(file), total, 'the export', { written: () => allocatedBytes(draft) })
    const archive = pack()
    const written = target.writeFile(bytesOf(archive), { signal })
    let done = 0
    const packed = async () => {
      archive.entry({ name: INDEX, mode: 0o600 }, encodeIndex(index, keyring))
      for (const [name, announced] of entriesOf(index)) {
        await packFile(archive, name, announced, paths.get(name) ?? '', signal, (bytes) => {
          done += bytes
          progress({ phase: 'export', done, total, unit: 'bytes' })
        })
      }
      archive.finalize()
    }
    // A failure of either side ends the other.
    await Promise.all([written, packed().catch((thrown: unknown) => Promise.reject(fail(archive, thrown)))])
    await target.sync()
    await rename(draft, file)
    await sync(dirname(file))
  } catch (thrown) {
    await rm(draft, { force: true })
    throw IceboxError.from(thrown)
  } finally {
    await target.close()
  }
}

/** What the export will hold. */
async function announce(
  { manifest, blobs }: Stored,
  extras: ExtraFile[],
  keyring: Keyring,
  signal: AbortSignal,
): Promise<Index> {
  const { checksum: _, ...content } = manifest
  return {
    version: 1,
    manifest: encodeManifest(content, keyring),
    blobs: manifest.blobs.map(({ name, bytes }) => ({ name, bytes, digest: blobs[name]?.digest ?? '' })),
    extras: await Promise.all(
      extras.map(async ({ name, path }) => ({
        name,
        bytes: (await stat(path)).size,
        digest: await digestFile(path, signal),
      })),
    ),
  }
}

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  )

function fail(stream: { destroy(error?: Error): void }, thrown: unknown): Error {
  const error = thrown instanceof Error ? thrown : new Error(String(thrown))
  stream.destroy(error)
  return error
}

async function packFile(
  archive: Pack,
  name: string,
  announced: Announced,
  path: string,
  signal: AbortSignal,
  wrote: (bytes: number) => void,
): Promise<void> {
  const hash = createHash('sha256')
  const content = async function* () {
    for await (const slice of readSlices(path, signal)) {
      hash.update(slice)
      wrote(slice.byteLength)
      // The slice is read into again, and the archive keeps what it is given.
      yield Buffer.from(slice)
    }
  }
  await pipeline(content, archive.entry({ name, size: announced.bytes, mode: 0o600 }), { signal })
  if (`sha256:${hash.digest('hex')}` !== announced.digest)
    throw new IceboxError('SnapshotCorrupt', `${name} was changed: its digest differs from the one known`)
}
