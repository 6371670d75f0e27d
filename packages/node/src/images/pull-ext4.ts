import { resolve } from 'node:path'
import { IceboxError, type ImageConfig, type Progress } from '@icebox/model'
import type { AssembledImage } from './assemble.ts'
import { makeExt4 } from './ext4-output.ts'
import { openSource } from './open.ts'
import { parseReference } from './reference.ts'
import { Scratch } from './scratch.ts'

/** What stands beside an ext4 file in `<file>.json`. */
export interface PulledExt4 {
  reference: string
  /** What the reference meant when it was pulled. */
  digest: string
  config: ImageConfig
  sizeBytes: number
}

/**
 * Pulls an image straight into an ext4 file, without a store: `snapshot pull`. The file is sparse, passes e2fsck, and the
 * digest it was made of is recorded beside it as `<output>.json`. `workDirectory` takes downloads meanwhile.
 * Nothing half-written stays; what a killed pull left is removed by the next one there.
 * Throws `InvalidArgument`, `NotFound`, `ImageInvalid`, `PlatformUnsupported`, `RegistryUnreachable`, `NoSpace`, `Unavailable`.
 */
export async function pullToExt4(
  reference: string,
  output: string,
  options: { sizeBytes?: number; cacheDirectory: string; workDirectory: string },
  progress: Progress,
  signal: AbortSignal,
): Promise<PulledExt4> {
  const parsed = parseReference(reference)
  const { cacheDirectory } = options
  const scratch = await Scratch.create(options.workDirectory)
  try {
    const source = await openSource(parsed, { cacheDirectory, directory: scratch.path }, progress, signal)
    const describe = ({ digest, config, sizeBytes }: AssembledImage): PulledExt4 => ({
      reference: parsed.canonical,
      digest,
      config,
      sizeBytes,
    })
    const making = { sizeBytes: options.sizeBytes, record: describe }
    return describe(await makeExt4(source, resolve(output), making, scratch.path, progress, signal))
  } catch (thrown) {
    throw IceboxError.from(thrown)
  } finally {
    await scratch.remove()
  }
}
