import { randomBytes } from 'node:crypto'
import { createReadStream, type Stats } from 'node:fs'
import { chmod, lstat, mkdir, open, readdir, readFile, readlink, realpath, rename, rm, symlink } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { Refusal } from '../failure.ts'
import type { Content, Entry, Place } from './place.ts'

/** A file up to this many bytes is read at once. */
const SMALL = 1024 * 1024
/** What another machine's files may be here: a setuid file of a sandbox must not become one of this machine. */
const PERMISSIONS = 0o777

const isMissing = (thrown: unknown): boolean =>
  thrown instanceof Error && 'code' in thrown && (thrown.code === 'ENOENT' || thrown.code === 'ENOTDIR')

async function entryOf(path: string, stats: Stats): Promise<Entry> {
  const type = stats.isFile()
    ? 'file'
    : stats.isDirectory()
      ? 'directory'
      : stats.isSymbolicLink()
        ? 'symlink'
        : 'other'
  const target = type === 'symlink' ? await readlink(path) : ''
  return { name: basename(path), type, mode: stats.mode & 0o7777, size: stats.size, target }
}

async function look(path: string): Promise<Entry | undefined> {
  try {
    return await entryOf(path, await lstat(path))
  } catch (thrown) {
    if (isMissing(thrown)) return undefined
    throw thrown
  }
}

async function write(path: string, content: Content, mode: number): Promise<void> {
  const part = join(dirname(path), `.${basename(path).slice(0, 200)}.${randomBytes(4).toString('hex')}.part`)
  const handle = await open(part, 'wx', 0o600)
  try {
    await handle.writeFile(content)
    await handle.chmod(mode & PERMISSIONS)
    await handle.close()
    await rename(part, path)
  } catch (thrown) {
    await handle.close().catch(() => {})
    await rm(part, { force: true })
    throw thrown
  }
}

export const localPlace: Place = {
  look,
  async follow(path) {
    const real = await realpath(path).catch((thrown: unknown) => {
      if (isMissing(thrown)) return undefined
      throw thrown
    })
    const entry = real === undefined ? undefined : await look(real)
    return real === undefined || entry === undefined ? undefined : { path: real, entry }
  },
  async list(path) {
    const names = await readdir(path)
    return Promise.all(names.map(async (name) => entryOf(join(path, name), await lstat(join(path, name)))))
  },
  async read(path) {
    const { size } = await lstat(path)
    return size <= SMALL ? readFile(path) : createReadStream(path, { highWaterMark: 256 * 1024 })
  },
  write,
  async makeDirectory(path, mode) {
    const there = await look(path)
    // Never through a symlink: what comes from a sandbox stays below the target.
    if (there !== undefined && there.type !== 'directory')
      throw new Refusal(
        'InvalidArgument',
        `${path} is in the way: it is not a directory`,
        'Move it away, or copy elsewhere.',
      )
    if (there === undefined) await mkdir(path, { mode: (mode & PERMISSIONS) | 0o700 })
  },
  async symlink(target, path) {
    const there = await look(path)
    if (there !== undefined && there.type !== 'directory') await rm(path)
    await symlink(target, path)
  },
  async setMode(path, mode) {
    await chmod(path, mode & PERMISSIONS)
  },
  nameOf: (path) => basename(resolve(path)) || undefined,
}
