import { type Icebox, isIceboxError } from '@icebox/sdk'
import { localImage, sendImage } from './local-image.ts'
import { ProgressBar } from './progress.ts'

/**
 * Makes sure that the server has an image, showing how far it is, and gives what to name it by. One that is there already is not asked
 * for again: only `image pull` looks whether a tag has moved. Files of this machine are sent, since only here they are known to be
 * the same.
 */
export async function presentImage(
  server: Icebox,
  reference: string,
  quiet: boolean,
  signal?: AbortSignal,
): Promise<string> {
  const local = await localImage(reference)
  if (local !== undefined) {
    using bar = new ProgressBar(`send ${reference}`, quiet)
    return (await sendImage(server, local, bar.step, signal)).digest
  }
  try {
    await server.images.get(reference, { signal })
  } catch (thrown) {
    if (!isIceboxError(thrown, 'NotFound')) throw thrown
    using bar = new ProgressBar(`pull ${reference}`, quiet)
    await server.images.pull(reference, { onProgress: bar.step, signal })
  }
  return reference
}
