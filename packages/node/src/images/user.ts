import { IceboxError } from '@icebox/model'
import type { ContentFile } from './contents.ts'
import type { Attributes } from './entry.ts'
import type { Leaf, Node, Tree } from './tree.ts'

const ID = 1000
const SHELL = '/bin/bash'
/** Of the lists of users and each file of a new home, which are read whole. */
const MAX_FILE_BYTES = 1_048_576

/** Where a user made by `addUser` is at home. */
export const homeOf = (name: string): string => `/home/${name}`

/**
 * Gives the image a user as an installer would: uid and gid 1000, bash, a home made of /etc/skel, no password, and sudo without
 * one when the image has sudo. What is new has the time of the image's /etc/passwd, so that the same image gives the same tree.
 * Throws `InvalidArgument` when the name is taken, `ImageInvalid` when the image keeps no users in files.
 */
export function addUser(tree: Tree, contents: ContentFile, name: string): void {
  const find = (path: string): Node | undefined => {
    let node: Node | undefined = tree.root
    for (const part of path.split('/')) node = node?.kind === 'directory' ? node.children.get(part) : undefined
    return node
  }
  const text = ({ inode }: Leaf): Buffer => {
    if (inode.size > MAX_FILE_BYTES)
      throw new IceboxError('ImageInvalid', `a file that a user is made of has more than ${MAX_FILE_BYTES} bytes`)
    return inode.run === undefined ? Buffer.alloc(0) : contents.read(inode.run, inode.size)
  }
  const add = (kind: 'file' | 'directory', path: string, attributes: Attributes, content: Buffer = Buffer.alloc(0)) => {
    tree.add({ kind, path, ...attributes, size: content.length, target: '', major: 0, minor: 0 })
    if (kind === 'directory') return
    tree.write(content)
    tree.end()
  }
  const passwd = find('etc/passwd')
  if (passwd?.kind !== 'leaf') throw new IceboxError('ImageInvalid', 'the image has no /etc/passwd to add a user to')
  const owned = { uid: ID, gid: ID, mtime: passwd.inode.mtime, xattrs: [] }

  const append = (path: string, line: string) => {
    const file = find(path)
    if (file?.kind !== 'leaf') return
    const present = text(file)
    const entries = present.toString('latin1').split('\n')
    const taken = entries.map((entry) => entry.split(':')).find(([key]) => key === name)
    if (taken !== undefined)
      throw new IceboxError('InvalidArgument', `the image cannot get a user ${name}: /${path} has one of that name`)
    add('file', path, file.inode, Buffer.concat([present, Buffer.from(`${line}\n`)]))
  }
  append('etc/passwd', `${name}:x:${ID}:${ID}::${homeOf(name)}:${SHELL}`)
  append('etc/group', `${name}:x:${ID}:`)
  append('etc/shadow', `${name}:!:0:0:99999:7:::`)
  append('etc/gshadow', `${name}:!::`)

  const home = homeOf(name).slice(1)
  add('directory', home, { ...owned, mode: 0o755 })
  const skeleton = find('etc/skel')
  if (skeleton?.kind === 'directory')
    for (const [file, node] of skeleton.children)
      if (node.kind === 'leaf' && node.inode.kind === 'file')
        add('file', `${home}/${file}`, { ...owned, mode: node.inode.mode }, text(node))
  if (find('etc/sudoers.d')?.kind === 'directory')
    add(
      'file',
      `etc/sudoers.d/${name}`,
      { ...owned, uid: 0, gid: 0, mode: 0o440 },
      Buffer.from(`${name} ALL=(ALL:ALL) NOPASSWD: ALL\n`),
    )
}
