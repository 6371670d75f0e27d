import { lstat, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'

/** No upload, export, pull or build takes as long. */
const DEAD_AFTER_MS = 86_400_000
const BLOCK = 512

/** Bytes on disk of a file or a whole tree, and when anything in it was last written, milliseconds since 1970. */
async function measure(path: string, signal: AbortSignal): Promise<{ bytes: number; writtenAt: number }> {
  signal.throwIfAborted()
  const facts = await lstat(path)
  let bytes = facts.blocks * BLOCK
  let writtenAt = facts.mtimeMs
  if (facts.isDirectory())
    for (const name of await readdir(path)) {
      const inside = await measure(join(path, name), signal)
      bytes += inside.bytes
      writtenAt = Math.max(writtenAt, inside.writtenAt)
    }
  return { bytes, writtenAt }
}

/** Removes what is in the directory and was not written to for a day. What goes away by itself meanwhile is left out. */
export async function sweep(
  directory: string,
  { dryRun }: { dryRun: boolean },
  signal: AbortSignal,
): Promise<{ file: string; bytes: number }[]> {
  const swept: { file: string; bytes: number }[] = []
  for (const name of await readdir(directory)) {
    const file = join(directory, name)
    const found = await measure(file, signal).catch((error: unknown) => {
      if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
      throw error
    })
    if (found === undefined || Date.now() - found.writtenAt < DEAD_AFTER_MS) continue
    if (!dryRun) await rm(file, { recursive: true, force: true })
    swept.push({ file, bytes: found.bytes })
  }
  return swept
}
