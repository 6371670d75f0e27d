import { type Icebox, isIceboxError } from '@icebox/sdk'
import { imageReference, withImage } from './image-reference.ts'
import { ProgressBar } from './progress.ts'

/**
 * Makes sure that the server has an image, showing how far it is, and gives the reference to name it by. One that is there
 * already is not asked for again: only `image pull` looks whether a tag has moved.
 */
export async function presentImage(
  server: Icebox,
  text: string,
  quiet: boolean,
  signal?: AbortSignal,
): Promise<string> {
  const reference = imageReference(text)
  try {
    await server.images.get(reference, { signal })
  } catch (thrown) {
    if (!isIceboxError(thrown, 'NotFound')) throw thrown
    using bar = new ProgressBar(`pull ${reference}`, quiet)
    await withImage(reference, server.images.pull(reference, { onProgress: bar.step, signal }))
  }
  return reference
}
