import { posix } from 'node:path'
import { type FileInfo, type Guest, isError } from '@icebox/model'
import { noFile, type Permission } from './wire.ts'

interface As {
  user?: string
}

export async function statOf(guest: Guest, path: string, as: As, signal: AbortSignal): Promise<FileInfo> {
  const info = await findFile(guest, path, as, signal)
  if (info === undefined) throw noFile(path)
  return info
}

export async function findFile(guest: Guest, path: string, as: As, signal: AbortSignal): Promise<FileInfo | undefined> {
  try {
    return await guest.stat(path, as, signal)
  } catch (thrown) {
    if (isError(thrown, 'NotFound')) return undefined
    throw thrown
  }
}

const given = (name: string | null | undefined): name is string => typeof name === 'string' && name !== ''

/** Changes what is given of mode, owner and group. */
export async function permit(
  guest: Guest,
  path: string,
  { owner, group, mode }: Permission,
  as: As,
  signal: AbortSignal,
): Promise<void> {
  const change: { mode?: number; owner?: string } = {}
  if (given(group)) change.owner = `${given(owner) ? owner : (await statOf(guest, path, as, signal)).uid}:${group}`
  else if (given(owner)) change.owner = owner
  // Taken away by a change of owner, setuid and setgid are given after it.
  if (change.owner !== undefined) await guest.setAttributes(path, { owner: change.owner }, as, signal)
  if (typeof mode === 'number') await guest.setAttributes(path, { mode }, as, signal)
}

/** Makes a directory and what is missing above it, all of the owner; what was there stays as it is. */
export async function makeDirectories(
  guest: Guest,
  path: string,
  permission: Permission,
  as: As,
  signal: AbortSignal,
): Promise<void> {
  const missing: string[] = []
  for (let at = path; (await findFile(guest, at, as, signal)) === undefined; at = posix.dirname(at)) {
    missing.unshift(at)
    if (posix.dirname(at) === at) break
  }
  const { mode } = permission
  await guest.makeDirectory(path, { ...as, ...(typeof mode === 'number' ? { mode } : {}) }, signal)
  const owners = { ...permission, mode: undefined }
  for (const directory of missing) await permit(guest, directory, owners, as, signal)
  // Past the umask.
  if (missing.length > 0 && typeof mode === 'number') await permit(guest, path, { mode }, as, signal)
}
