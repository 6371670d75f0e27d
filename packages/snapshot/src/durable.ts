import { open, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'

/** Makes the content of a file, or the entries of a directory, survive a loss of power. */
export async function sync(path: string): Promise<void> {
  const handle = await open(path, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** Writes a whole file that must not exist yet and syncs it; its directory is the caller's to sync. */
export async function writeSynced(path: string, content: string, mode = 0o600): Promise<void> {
  const handle = await open(path, 'wx', mode)
  try {
    await handle.writeFile(content)
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** Moves within one file system; once it resolves, a loss of power does not undo it. */
export async function renameSynced(from: string, to: string): Promise<void> {
  await rename(from, to)
  await sync(dirname(to))
  if (dirname(from) !== dirname(to)) await sync(dirname(from))
}

/** Puts a whole file in the place of what is there, durably. `draft`, on the same file system, is what a kill may leave. */
export async function replaceSynced(file: string, content: string, draft: string): Promise<void> {
  await rm(draft, { force: true })
  await writeSynced(draft, content)
  await renameSynced(draft, file)
}

/** What a file system call threw because there is no such file. */
export const isMissing = (thrown: unknown): boolean =>
  thrown instanceof Error && 'code' in thrown && thrown.code === 'ENOENT'
