import { resolve } from 'node:path'
import { Budget, DEFAULT_PROJECT, IceboxError, type ImageConfig, type Progress } from '@icebox/model'
import type { AssembledImage } from './assemble.ts'
import { makeExt4 } from './ext4-output.ts'
import { inWords } from './local.ts'
import { openSource } from './open.ts'
import { parseReference } from './reference.ts'
import { Scratch } from './scratch.ts'
import { UNLIMITED } from './source-policy.ts'

const DOCUMENT_BYTES = 67_108_864

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
  const called = new Map<string, string>()
  const scratch = await Scratch.create(options.workDirectory)
  try {
    await using opened = new AsyncDisposableStack()
    using held = new Budget('the documents of an image', DOCUMENT_BYTES).reserve(0)
    const by = { project: DEFAULT_PROJECT, installation: true }
    const opening = { by, policy: UNLIMITED, cacheDirectory, directory: scratch.path, held, opened, called }
    const source = await openSource(parsed, opening, progress, signal)
    const describe = ({ digest, config, sizeBytes }: AssembledImage): PulledExt4 => ({
      reference: parsed.canonical,
      digest,
      config,
      sizeBytes,
    })
    const making = { sizeBytes: options.sizeBytes, record: describe }
    return describe(await makeExt4(source, resolve(output), making, scratch.path, progress, signal))
  } catch (thrown) {
    throw IceboxError.from(inWords(thrown, called))
  } finally {
    await scratch.remove()
  }
}
