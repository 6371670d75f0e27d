import { chmod, mkdtemp, readdir, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { command } from './command.ts'
import { withLock } from './lock.ts'

/**
 * Makes a directory of the cache, whole or not at all, once however many ask for it at the same time. `make` gets an empty
 * directory beside it and gives the path, inside that, of what shall be at `target`. Directories that are there stay as they are.
 */
export async function makeOnce(
  target: string,
  make: (scratch: string) => Promise<string>,
  signal: AbortSignal,
): Promise<void> {
  await withLock(
    `${target}.lock`,
    async () => {
      if (await exists(target)) return
      const parent = dirname(target)
      const prefix = `${basename(target)}.tmp-`
      // What killed processes left. A compiler that outlived one of them has nowhere to write to then.
      for (const name of await readdir(parent))
        if (name.startsWith(prefix)) await rm(join(parent, name), { recursive: true, force: true })
      const scratch = await mkdtemp(join(parent, prefix))
      try {
        const made = await make(scratch)
        await chmod(made, 0o755)
        // Otherwise a power failure could leave the name with empty files behind it.
        await command('sync', ['--file-system', made], { deadlineMs: 300_000 }, signal)
        await rename(made, target)
      } finally {
        await rm(scratch, { recursive: true, force: true })
      }
    },
    signal,
  )
}

const exists = (path: string) =>
  stat(path).then(
    () => true,
    () => false,
  )
