import { mkdir, open, rm } from 'node:fs/promises'
import { command } from '../../packages/node/src/setup/command.ts'

const DEADLINE_MS = 120_000

async function run(program: string, args: string[]): Promise<void> {
  // Without the caller's signal: what was begun here is undone by the next call.
  await command(program, args, { deadlineMs: DEADLINE_MS }, new AbortController().signal)
}

/** Mounts a file system file on a new directory for the time of the work. */
export async function withMounted<R>(
  file: string,
  directory: string,
  mode: 'ro' | 'rw',
  work: () => Promise<R>,
): Promise<R> {
  await mkdir(directory)
  try {
    await run('mount', ['-o', `loop,${mode}`, file, directory])
    try {
      return await work()
    } finally {
      await run('umount', [directory])
    }
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

/**
 * A new, empty ext4 file system for the time of the work. ext4 looks at every inode that was deleted in the last minutes before
 * it gives one out: on one disk for all, each run would be slowed by the thousands of files of the runs before.
 */
export async function withDisk<R>(file: string, directory: string, bytes: number, work: () => Promise<R>): Promise<R> {
  try {
    const handle = await open(file, 'wx')
    await handle.truncate(bytes)
    await handle.close()
    await run('mke2fs', ['-q', '-F', '-t', 'ext4', '-E', 'lazy_itable_init=0,lazy_journal_init=0,nodiscard', file])
    // What others wrote last is not written out at the cost of the work.
    await run('sync', ['--file-system', file])
    return await withMounted(file, directory, 'rw', work)
  } finally {
    await rm(file, { force: true })
  }
}
