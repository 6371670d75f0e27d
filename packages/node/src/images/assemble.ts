import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { IceboxError, type ImageConfig, type Progress } from '@icebox/model'
import type { ImageSource, SourcePart } from './source.ts'
import { requireSpace } from './space.ts'
import { type Unpacked, Unpacker, type UnpackJob } from './unpack.ts'

/** Downloads at a time for one image. */
const PARALLEL_DOWNLOADS = 3
/** The tree, and the file system made of it. */
const SPACE_FACTOR = 2

export interface AssembledImage {
  digest: string
  config: ImageConfig
  /** The unpacked root file system. */
  tree: string
  unpacked: Unpacked
}

/** Downloads and unpacks an image into the directory, which the caller removes whatever happens. Throws `ImageInvalid`, `NoSpace`. */
export async function assemble(
  source: ImageSource,
  directory: string,
  progress: Progress,
  signal: AbortSignal,
): Promise<AssembledImage> {
  const downloads = sum(source.parts.filter(({ downloaded }) => downloaded))
  // What is compressed only grows: this much is needed for certain, and more is watched for while unpacking.
  requireSpace(directory, downloads + SPACE_FACTOR * sum(source.parts), 'the image')
  const tree = join(directory, 'tree')
  const blobs = join(directory, 'blobs')
  await mkdir(tree)
  await mkdir(blobs)
  const ending = new AbortController()
  const both = AbortSignal.any([signal, ending.signal])
  const unpacker = new Unpacker({ root: tree, digest: source.digest === undefined, spaceFactor: SPACE_FACTOR })
  const fetched: Promise<UnpackJob>[] = []
  try {
    const report = reporter(source.parts, progress)
    fetched.push(...fetchAll(source.parts, blobs, report.download, both))
    for (const [i, job] of fetched.entries()) {
      const ready = await job
      await unpacker.run(ready, (bytes) => report.unpack(i, bytes), signal)
      if (source.parts[i]?.downloaded && 'file' in ready) await rm(ready.file)
    }
    const unpacked = await unpacker.run({ do: 'finish' }, () => {}, signal)
    const digest = source.digest ?? unpacked?.digest
    if (unpacked === undefined || digest === undefined)
      throw new IceboxError('Internal', 'the unpacking thread gave no result')
    return { digest, config: source.config, tree, unpacked }
  } finally {
    ending.abort()
    await Promise.allSettled([...fetched, unpacker.close()])
  }
}

const sum = (parts: SourcePart[]): number => parts.reduce((total, { storedBytes }) => total + storedBytes, 0)

/** Starts with the first, a few at a time. The results are in the order of the parts. */
function fetchAll(
  parts: SourcePart[],
  directory: string,
  onBytes: (part: number, bytes: number) => void,
  signal: AbortSignal,
): Promise<UnpackJob>[] {
  const results = parts.map(() => Promise.withResolvers<UnpackJob>())
  const queue = parts.entries()
  const worker = async () => {
    for (const [i, part] of queue)
      await part.fetch(directory, (bytes) => onBytes(i, bytes), signal).then(results[i]?.resolve, results[i]?.reject)
  }
  for (let i = 0; i < PARALLEL_DOWNLOADS; i++) void worker()
  for (const { promise } of results) promise.catch(() => {})
  return results.map(({ promise }) => promise)
}

function reporter(parts: SourcePart[], progress: Progress) {
  const total = (which: SourcePart[]) => sum(which)
  const counter = (phase: string, which: SourcePart[]) => {
    const done = parts.map(() => 0)
    const all = total(which)
    return (part: number, bytes: number) => {
      done[part] = bytes
      const sofar = done.reduce((a, b) => a + b, 0)
      progress({ phase, done: sofar, ...(all > 0 ? { total: all } : {}), unit: 'bytes' })
    }
  }
  return {
    download: counter(
      'download',
      parts.filter(({ downloaded }) => downloaded),
    ),
    unpack: counter('unpack', parts),
  }
}
