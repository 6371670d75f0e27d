import { readFile, realpath, stat, statfs } from 'node:fs/promises'
import { dirname } from 'node:path'
import { cacheDirectory } from '@icebox/node'
import { size } from '../output.ts'
import type { Check } from './diagnosis.ts'

const LEAST_BYTES = 1024 ** 3
const COMFORT_BYTES = 10 * 1024 ** 3
/** What is in these is gone after a reboot. */
const VOLATILE = new Set(['tmpfs', 'ramfs'])

/** The path itself, or the nearest directory above it that exists. */
async function existing(path: string): Promise<string> {
  try {
    return await realpath(path)
  } catch {
    const above = dirname(path)
    return above === path ? path : await existing(above)
  }
}

/** The type of the file system that a path is on, by the longest mount point above it, such as `ext4`. */
export function fileSystemOf(path: string, mountinfo: string): string {
  let best = { at: '', type: 'unknown' }
  for (const line of mountinfo.split('\n')) {
    const [left = '', right = ''] = line.split(' - ')
    const at = left
      .split(' ')[4]
      ?.replaceAll(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8)))
    const type = right.split(' ')[0]
    if (!at || !type) continue
    // A later mount on the same place hides the earlier one.
    const above = at === '/' || path === at || path.startsWith(`${at}/`)
    if (above && at.length >= best.at.length) best = { at, type }
  }
  return best.type
}

async function space(id: string, path: string, purpose: string, required: boolean): Promise<Check> {
  const at = await existing(path)
  const { bavail, bsize } = await statfs(at)
  const free = bavail * bsize
  const type = fileSystemOf(at, await readFile('/proc/self/mountinfo', 'utf8'))
  const check = { id, group: 'storage', required, purpose, found: `${path}: ${size(free)} free on ${type}` } as const
  if (free < LEAST_BYTES)
    return { ...check, status: 'missing', remedy: `Free at least ${size(LEAST_BYTES)}, or choose another place.` }
  if (VOLATILE.has(type))
    return {
      ...check,
      status: 'warning',
      remedy: `${type} is in memory and gone after a reboot: choose a place on a disk.`,
    }
  if (free < COMFORT_BYTES)
    return { ...check, status: 'warning', remedy: `Images and snapshots want ${size(COMFORT_BYTES)} or more.` }
  return { ...check, status: 'ok' }
}

/** Whether the data directory is ours to use. */
async function ownership(directory: string): Promise<Check> {
  const check = {
    id: 'data-directory',
    group: 'storage',
    required: true,
    purpose: 'keeps images, snapshots and the store',
  } as const
  const found = await stat(directory).catch((failure: NodeJS.ErrnoException) => failure)
  if (found instanceof Error)
    return found.code === 'ENOENT'
      ? { ...check, status: 'ok', found: `${directory}: made by the first \`icebox up\`` }
      : { ...check, status: 'missing', found: found.message, remedy: 'Choose another with --data or ICEBOX_DATA.' }
  if (!found.isDirectory())
    return {
      ...check,
      status: 'missing',
      found: `${directory} is not a directory`,
      remedy: 'Choose another with --data or ICEBOX_DATA.',
    }
  if (found.uid !== process.geteuid?.())
    return {
      ...check,
      status: 'missing',
      found: `${directory} belongs to user ${found.uid}`,
      remedy: 'Run as the user who owns it, or choose another with --data or ICEBOX_DATA.',
    }
  return { ...check, status: 'ok', found: directory }
}

export async function checkStorage(dataDirectory: string): Promise<Check[]> {
  return [
    await ownership(dataDirectory),
    await space('data-space', dataDirectory, 'room for images and snapshots', true),
    await space('cache-space', cacheDirectory(), 'room for builds, made again when lost', false),
  ]
}
