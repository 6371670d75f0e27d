import { stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { IceboxError, type Progress } from '@icebox/model'
import { renameSynced, writeSynced } from '@icebox/snapshot'
import { type AssembledImage, assemble } from './assemble.ts'
import { checkExt4Size } from './ext4/write.ts'
import { Scratch } from './scratch.ts'
import type { ImageSource } from './source.ts'

/**
 * Makes the ext4 file under its name only once it is whole and durable; a file that was there is replaced. What `record`
 * gives is written beside it as `<output>.json`. `directory`: for downloads. Throws as assemble.
 */
export async function makeExt4(
  source: ImageSource,
  output: string,
  options: { sizeBytes?: number | undefined; record?: (image: AssembledImage) => unknown },
  directory: string,
  progress: Progress,
  signal: AbortSignal,
): Promise<AssembledImage> {
  const sizeBytes = options.sizeBytes === undefined ? undefined : checkExt4Size(options.sizeBytes)
  if ((await stat(output).catch(() => undefined))?.isDirectory())
    throw new IceboxError('InvalidArgument', `${output} is a directory, not a file to be written`)
  const scratch = await Scratch.create(dirname(output))
  try {
    const file = join(scratch.path, 'image.ext4')
    const image = await assemble(source, { format: 'ext4', sizeBytes }, file, directory, progress, signal)
    signal.throwIfAborted()
    if (options.record !== undefined) {
      const record = join(scratch.path, 'image.json')
      await writeSynced(record, `${JSON.stringify(options.record(image), null, 2)}\n`, 0o644)
      await renameSynced(record, `${output}.json`)
    }
    await renameSynced(file, output)
    return image
  } finally {
    await scratch.remove()
  }
}
