import { readdirSync } from 'node:fs'
import { mkdir, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { ImageConfig, Progress } from '@icebox/model'
import { allocatedBytes, claimSpace } from '@icebox/snapshot'
import type { ImageSource, SourcePart } from './source.ts'
import { type Product, type Unpacked, Unpacker, type UnpackJob } from './unpack.ts'

/** Downloads at a time for one image. */
const PARALLEL_DOWNLOADS = 3
export interface AssembledImage extends Unpacked {
  config: ImageConfig
}

/**
 * Makes the file system of an image: downloads it into the directory and unpacks it straight into the file `output`, which is
 * durable then. The caller removes both when this fails. Throws `ImageInvalid`, `NoSpace`, `InvalidArgument` (too small a size).
 */
export async function assemble(
  source: ImageSource,
  product: Product,
  output: string,
  directory: string,
  progress: Progress,
  signal: AbortSignal,
): Promise<AssembledImage> {
  // What is compressed only grows: this much is needed for certain, and more is watched for while unpacking.
  const downloads = sum(source.parts.filter(({ downloaded }) => downloaded))
  const blobs = join(directory, 'blobs')
  await mkdir(blobs)
  using _ = claimSpace(dirname(output), downloads + sum(source.parts), 'the image', {
    written: () =>
      allocatedBytes(output) + readdirSync(blobs).reduce((all, name) => all + allocatedBytes(join(blobs, name)), 0),
  })
  const ending = new AbortController()
  const both = AbortSignal.any([signal, ending.signal])
  const unpacker = new Unpacker({ product, output, digest: source.digest === undefined })
  const report = reporter(source.parts, progress)
  const fetched = fetchAll(source.parts, blobs, report.download, both)
  try {
    for (const [i, job] of fetched.entries()) {
      const ready = await job
      await unpacker.apply(ready, (bytes) => report.unpack(i, bytes), signal)
      if (source.parts[i]?.downloaded && 'file' in ready) await rm(ready.file)
    }
    progress({ phase: product.format })
    return { ...(await unpacker.finish(source.digest, signal)), config: source.config }
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
