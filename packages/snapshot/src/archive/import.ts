import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { type FileHandle, mkdtemp, open, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { collect, IceboxError, isError, type Progress } from '@icebox/model'
import { extract } from 'tar-stream'
import { DRAFT_PREFIX, type DraftDirectory } from '../draft.ts'
import type { Keyring } from '../keyring.ts'
import { decodeManifest, type Manifest } from '../manifest.ts'
import { bytesOf } from './bytes.ts'
import {
  type Announced,
  decodeIndex,
  entriesOf,
  INDEX,
  INDEX_MAX_BYTES,
  type Index,
  totalBytes,
} from './index-entry.ts'

/** An export that was read and checked and waits to be accepted. */
export interface Incoming {
  /** As it was written, with its own id. */
  readonly manifest: Manifest
  /** Where the further files are, by name, until `commit` or `discard`; to be renamed away or copied before. */
  readonly extras: ReadonlyMap<string, string>
  /** Makes it a snapshot, durable when this resolves; see `Draft.commit`. */
  commit(signal: AbortSignal): Promise<Manifest>
  discard(): Promise<void>
}

const ZEROS = Buffer.alloc(65_536)

/** Whoever sent it knows it by a name of their own, and has no snapshot of it here that could be verified. */
const damaged = (message: string, cause: unknown): IceboxError =>
  new IceboxError('SnapshotCorrupt', message, {
    cause,
    remedy: 'Export the snapshot again, where it came from: this file is not as it was written.',
  })

/**
 * Reads an export into a draft made by `begin`, which is told the bytes needed. Only what the first entry announces is
 * taken: plain files of those names, lengths and digests, each once. So no name in the file ever becomes a path.
 */
export async function receive(
  file: string,
  tmp: string,
  begin: (bytes: number) => Promise<DraftDirectory>,
  discardDraft: (draft: DraftDirectory) => Promise<void>,
  keyring: Keyring,
  progress: Progress,
  signal: AbortSignal,
): Promise<Incoming> {
  const refused = (problem: string, cause?: unknown) =>
    new IceboxError('InvalidArgument', `the file is not an export of Icebox: ${problem}`, {
      cause,
      remedy: 'Give a file that `icebox snapshot export` wrote.',
    })
  const about = await stat(file).catch((thrown: unknown) => {
    throw new IceboxError('InvalidArgument', `the file cannot be read: ${String(thrown)}`, { cause: thrown })
  })
  if (!about.isFile()) throw refused('it is not a file')
  const archive = extract()
  const feeding = pipeline(createReadStream(file, { highWaterMark: 1_048_576 }), archive, { signal })
  feeding.catch(() => {})
  let draft: DraftDirectory | undefined
  let extrasDirectory = ''
  const discard = async () => {
    if (draft) await discardDraft(draft)
    if (extrasDirectory) await rm(extrasDirectory, { recursive: true, force: true })
  }
  let index: Index | undefined
  try {
    const outstanding = new Map<string, Announced>()
    let total = 0
    let done = 0
    for await (const entry of archive) {
      const { name, type, size: length } = entry.header
      if (!index) {
        if (name !== INDEX || type !== 'file' || length > INDEX_MAX_BYTES)
          throw refused(`it does not begin with ${INDEX}`)
        const text = Buffer.from(await collect(bytesOf(entry), INDEX_MAX_BYTES)).toString()
        index = decodeIndex(text, keyring)
        for (const [announced, about] of entriesOf(index)) outstanding.set(announced, about)
        if (outstanding.size !== index.blobs.length + index.extras.length) throw refused('it announces a name twice')
        total = totalBytes(index)
        if (total > about.size)
          throw new IceboxError(
            'SnapshotCorrupt',
            `the file is cut off: it announces ${total} bytes and has ${about.size}`,
          )
        draft = await begin(total)
        extrasDirectory = await mkdtemp(join(tmp, `${DRAFT_PREFIX}extras-`))
        continue
      }
      const announced = outstanding.get(name)
      if (!announced || !draft || type !== 'file' || length !== announced.bytes)
        throw refused(`it holds ${JSON.stringify(name)} (${type}, ${length} bytes), which it does not announce`)
      outstanding.delete(name)
      const directory = name.startsWith('blobs/') ? draft.files : extrasDirectory
      const digest = await unpack(bytesOf(entry), join(directory, announced.name), length, (bytes) => {
        done += bytes
        progress({ phase: 'import', done, total, unit: 'bytes' })
      })
      if (digest !== announced.digest)
        throw new IceboxError('SnapshotCorrupt', `${name} in the file is damaged: its digest differs`)
    }
    await feeding
    if (!index || !draft) throw refused('it is empty')
    const [lacking] = outstanding.keys()
    if (lacking !== undefined) throw new IceboxError('SnapshotCorrupt', `the file is cut off: it lacks ${lacking}`)
    return incoming(index, decodeManifest(index.manifest, keyring), draft, extrasDirectory, discard)
  } catch (thrown) {
    archive.destroy()
    await feeding.catch(() => {})
    await discard()
    if (isError(thrown, 'SnapshotCorrupt')) throw damaged(thrown.message, thrown)
    if (thrown instanceof IceboxError || signal.aborted) throw IceboxError.from(thrown)
    if (thrown instanceof Error && 'code' in thrown && thrown.code !== 'ERR_STREAM_PREMATURE_CLOSE')
      throw IceboxError.from(thrown)
    // What is left is said by the tar reader.
    if (!index) throw refused(String(thrown), thrown)
    throw damaged(`the file is damaged: ${String(thrown)}`, thrown)
  }
}

function incoming(
  index: Index,
  manifest: Manifest,
  draft: DraftDirectory,
  extrasDirectory: string,
  discard: () => Promise<void>,
): Incoming {
  const digests = new Map(index.blobs.map(({ name, digest }) => [name, digest]))
  return {
    manifest,
    extras: new Map(index.extras.map(({ name }) => [name, join(extrasDirectory, name)])),
    discard,
    async commit(signal) {
      const { checksum, version: _version, blobs, id, ...content } = manifest
      try {
        const importedFrom = { id, manifest: checksum }
        const names = blobs.map((blob) => blob.name)
        return await draft.seal({ ...content, importedFrom }, names, digests, signal)
      } finally {
        await discard()
      }
    },
  }
}

/** Writes an entry to a new file, leaving holes where it is zeros, and gives its digest. */
async function unpack(
  content: AsyncIterable<Uint8Array>,
  path: string,
  length: number,
  wrote: (bytes: number) => void,
): Promise<string> {
  const hash = createHash('sha256')
  const handle = await open(path, 'wx', 0o600)
  try {
    let position = 0
    for await (const chunk of content) {
      hash.update(chunk)
      await writeSparse(handle, chunk, position)
      position += chunk.byteLength
      wrote(chunk.byteLength)
    }
    await handle.truncate(length)
  } finally {
    await handle.close()
  }
  return `sha256:${hash.digest('hex')}`
}

async function writeSparse(handle: FileHandle, chunk: Uint8Array, position: number): Promise<void> {
  for (let from = 0; from < chunk.byteLength; from += ZEROS.byteLength) {
    const piece = chunk.subarray(from, from + ZEROS.byteLength)
    if (ZEROS.subarray(0, piece.byteLength).equals(piece)) continue
    // A disk that is about to be full takes a part and says so at the next write.
    for (let written = 0; written < piece.byteLength; )
      written += (await handle.write(piece, written, piece.byteLength - written, position + from + written))
        .bytesWritten
  }
}
