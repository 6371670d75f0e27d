import { rm, writeFile } from 'node:fs/promises'
import { createNetworkNamespace, unmount } from '@icebox/snapshot'

/**
 * A network namespace with nothing but `lo`, up, kept by a mount on the file `path`. It belongs to the host's user
 * namespace, so nothing inside a sandbox has rights over it.
 */
export async function createNetwork(path: string): Promise<void> {
  await writeFile(path, '')
  createNetworkNamespace(path)
}

/** Removes the mounts on `path` and the file. The namespace goes with its last process. Removing what is not there succeeds. */
export async function removeNetwork(path: string): Promise<void> {
  while (unmount(path));
  await rm(path, { force: true })
}
