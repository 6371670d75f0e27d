import { mkdir, open } from 'node:fs/promises'
import { dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { tryLock } from '@icebox/snapshot'

/**
 * Runs `work` while holding the exclusive lock of the file, which is made when absent and stays. Waits for other processes;
 * the lock of a process that died is free.
 */
export async function withLock<T>(path: string, work: () => Promise<T>, signal: AbortSignal): Promise<T> {
  await mkdir(dirname(path), { recursive: true })
  await using file = await open(path, 'a', 0o600)
  while (!tryLock(file.fd)) await sleep(100, undefined, { signal })
  return await work()
}
