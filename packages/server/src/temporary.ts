import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { join } from 'node:path'

/**
 * Gives the path of a file that is not there, and removes what is there in the end. It has a directory of its own, so that
 * work which ends too late finds no place to write to any more.
 */
export async function withTemporaryFile<T>(
  parent: string,
  purpose: string,
  work: (file: string) => Promise<T>,
): Promise<T> {
  await mkdir(parent, { recursive: true })
  const directory = await mkdtemp(join(parent, `${purpose}-`))
  try {
    return await work(join(directory, 'snapshot.tar'))
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}
