import { createHash } from 'node:crypto'
import type { Attributes, ByteString } from './entry.ts'
import type { Directory, Inode } from './tree.ts'

/**
 * `sha256:<hex>` of everything a tree holds: names, kinds, owners, modes, times, xattrs, contents, and which
 * names are one inode. The same tree gives the same digest wherever it came from. The tree must have been made with hashing.
 */
export function treeDigest(root: Directory): string {
  const hash = createHash('sha256').update('icebox tree 1\n')
  const seen = new Map<Inode, ByteString>()
  const line = (...fields: (string | number | readonly (readonly string[])[])[]) =>
    hash.update(`${JSON.stringify(fields)}\n`)
  const visit = (directory: Directory, path: ByteString): void => {
    line(path, 'directory', ...attributes(directory.attributes))
    const children = [...directory.children].sort(([a], [b]) => (a < b ? -1 : 1))
    for (const [name, child] of children) {
      const below = `${path}/${name}`
      if (child.kind === 'directory') {
        visit(child, below)
        continue
      }
      const { inode } = child
      const first = seen.get(inode)
      if (first !== undefined) {
        line(below, 'hardlink', first)
        continue
      }
      seen.set(inode, below)
      const { kind, size, target, major, minor, content } = inode
      line(below, kind, ...attributes(inode), size, content ?? '', target, major, minor)
    }
  }
  visit(root, '')
  return `sha256:${hash.digest('hex')}`
}

function attributes({ uid, gid, mode, mtime, xattrs }: Attributes) {
  const sorted = xattrs.map(({ name, value }) => [name, Buffer.from(value).toString('hex')] as const)
  sorted.sort(([a], [b]) => (a < b ? -1 : 1))
  return [uid, gid, mode, mtime.seconds, mtime.nanoseconds, sorted] as const
}
