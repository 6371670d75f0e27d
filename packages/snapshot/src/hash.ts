import { createHash } from 'node:crypto'
import { open } from 'node:fs/promises'
import { throwIfAborted } from './abortable.ts'
import { forgetPages } from './linux/page-cache.ts'

const SLICE = 1_048_576

/** Reads a file from the disk, in slices of 1 MiB that are valid until the next one is asked for. */
export async function* readSlices(path: string, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const handle = await open(path, 'r')
  try {
    forgetPages(handle.fd)
    const buffer = Buffer.allocUnsafe(SLICE)
    while (true) {
      throwIfAborted(signal)
      const { bytesRead } = await handle.read(buffer)
      if (bytesRead === 0) return
      yield buffer.subarray(0, bytesRead)
    }
  } finally {
    await handle.close()
  }
}

/** `sha256:<hex>` of a file as it is on the disk now. A slice holds the thread for less than a millisecond. */
export async function digestFile(path: string, signal: AbortSignal): Promise<string> {
  const hash = createHash('sha256')
  for await (const slice of readSlices(path, signal)) hash.update(slice)
  return `sha256:${hash.digest('hex')}`
}
