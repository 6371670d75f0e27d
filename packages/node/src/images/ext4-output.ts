import { dirname, join } from 'node:path'
import type { Progress } from '@icebox/model'
import { renameDurably, writeDurably } from './durable.ts'
import { makeExt4 } from './filesystem.ts'
import { Scratch } from './scratch.ts'
import type { Unpacked } from './unpack.ts'

/**
 * Makes the ext4 file under its name only once it is whole and durable; a file that was there is replaced. With `record`, that
 * is written beside it as `<output>.json`, with the size. Gives the size in bytes. Throws as makeExt4.
 */
export async function writeExt4(
  image: { tree: string; unpacked: Unpacked; digest: string },
  output: string,
  options: { sizeBytes?: number | undefined; record?: Record<string, unknown> },
  progress: Progress,
  signal: AbortSignal,
): Promise<number> {
  progress({ phase: 'ext4' })
  const scratch = await Scratch.create(dirname(output))
  try {
    const file = join(scratch.path, 'image.ext4')
    const sizeBytes = await makeExt4(image.tree, image.unpacked, image.digest, file, options.sizeBytes, signal)
    signal.throwIfAborted()
    if (options.record !== undefined) {
      const record = join(scratch.path, 'image.json')
      await writeDurably(record, `${JSON.stringify({ ...options.record, sizeBytes }, null, 2)}\n`)
      await renameDurably(record, `${output}.json`)
    }
    await renameDurably(file, output)
    return sizeBytes
  } finally {
    await scratch.remove()
  }
}
