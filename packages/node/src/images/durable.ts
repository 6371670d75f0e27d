import { open, rename } from 'node:fs/promises'
import { dirname } from 'node:path'

/** Makes a file's or directory's content survive a crash of the machine. */
export async function syncFile(path: string): Promise<void> {
  const handle = await open(path, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** Writes a new file that survives a crash once this resolves, except for its name. */
export async function writeDurably(path: string, content: string): Promise<void> {
  const handle = await open(path, 'wx', 0o644)
  try {
    await handle.writeFile(content)
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** Puts what is durable already under its final name, durably. Replaces a file, not a directory that has something in it. */
export async function renameDurably(from: string, to: string): Promise<void> {
  await rename(from, to)
  await syncFile(dirname(to))
}
