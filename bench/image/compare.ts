import { createHash } from 'node:crypto'
import { constants } from 'node:fs'
import { lstat, open, readdir, readlink } from 'node:fs/promises'
import { join } from 'node:path'
import { getXattrs } from '@icebox/snapshot'

/** What every tool adds by itself. */
const IGNORED = new Set(['lost+found'])

async function hash(path: string): Promise<string> {
  const handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW)
  try {
    const digest = createHash('sha256')
    for await (const chunk of handle.createReadStream({ autoClose: false })) digest.update(chunk)
    return digest.digest('hex')
  } finally {
    await handle.close()
  }
}

/** All that a tree holds: path → kind, mode, owner, size, content, target, extended attributes and which names are one file. */
export async function describeTree(root: string): Promise<Map<string, string>> {
  const found = new Map<string, string>()
  const names = new Map<bigint, string>()
  const visit = async (path: string): Promise<void> => {
    const full = join(root, path)
    const stats = await lstat(full, { bigint: true })
    const facts: Record<string, unknown> = {
      mode: Number(stats.mode).toString(8),
      owner: `${stats.uid}:${stats.gid}`,
      xattrs: [...getXattrs(Buffer.from(full))].map(([name, value]) => `${name}=${value.toString('hex')}`).sort(),
    }
    if (stats.isSymbolicLink()) facts.target = await readlink(full)
    if (!stats.isDirectory()) {
      facts.modified = Number(stats.mtimeMs / 1000n)
      facts.links = Number(stats.nlink)
      facts.same = names.get(stats.ino) ?? path
      names.set(stats.ino, names.get(stats.ino) ?? path)
    }
    if (stats.isFile()) Object.assign(facts, { size: Number(stats.size), sha256: await hash(full) })
    found.set(path, JSON.stringify(facts))
    if (!stats.isDirectory()) return
    for (const name of (await readdir(full)).sort()) if (!IGNORED.has(name)) await visit(join(path, name))
  }
  await visit('')
  return found
}

/** What one has and the other has not, or not so; a few lines for people. Empty: the trees are equal. */
export function differences(ours: Map<string, string>, theirs: Map<string, string>): string[] {
  const paths = [...new Set([...ours.keys(), ...theirs.keys()])].sort()
  return paths
    .filter((path) => ours.get(path) !== theirs.get(path))
    .map((path) => `/${path}: ${ours.get(path) ?? 'missing'} instead of ${theirs.get(path) ?? 'nothing'}`)
}
