import { createHash, type Hash } from 'node:crypto'
import {
  chmodSync,
  closeSync,
  fchmodSync,
  fchownSync,
  futimesSync,
  lchownSync,
  linkSync,
  lutimesSync,
  mkdirSync,
  openSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeSync,
} from 'node:fs'
import { IceboxError } from '@icebox/model'
import { mknod, setXattr } from '@icebox/snapshot'
import { type Attributes, type ByteString, type Entry, type EntrySink, readable, toBytes } from './entry.ts'
import type { SpaceBudget } from './space.ts'

const S_IFCHR = 0o020000
const S_IFBLK = 0o060000
const S_IFIFO = 0o010000

/** Far above any real image; what has more is an attack on memory and inodes. */
const MAX_ENTRIES = 4_000_000
const MAX_NAME = 255
const MAX_LINKS_FOLLOWED = 40

/** What all names of one inode share. */
export interface Inode extends Attributes {
  kind: Exclude<Entry['kind'], 'directory' | 'hardlink'>
  size: number
  target: ByteString
  major: number
  minor: number
  /** Hex sha256 of a file's content, when the tree was told to compute them. */
  content?: string
}

export interface Leaf {
  kind: 'leaf'
  layer: number
  inode: Inode
}

export interface Directory {
  kind: 'directory'
  layer: number
  /** On disk. */
  path: ByteString
  attributes: Attributes
  children: Map<ByteString, Node>
}

export type Node = Leaf | Directory

const invalid = (entry: ByteString, why: string): IceboxError =>
  new IceboxError('ImageInvalid', `the image has ${JSON.stringify(readable(entry))}, which ${why}`)

// Most paths are ASCII, and a string is cheaper to hand to the kernel than a buffer.
const ASCII = /^[\0-\x7f]*$/
const onDisk = (path: ByteString): string | Buffer => (ASCII.test(path) ? path : toBytes(path))

/**
 * A root file system being put together in a directory of its own from layers, with what is in it also kept in memory.
 * Every path is resolved in memory, where only what came from the image exists: nothing an image says can reach outside.
 * All calls are synchronous system calls, which is several times faster than promises for ten thousands of small files;
 * so it belongs into a worker thread.
 */
export class Tree implements EntrySink {
  readonly root: Directory
  readonly #budget: SpaceBudget
  readonly #hashing: boolean
  #layer = 0
  #whiteouts = false
  #entries = 0
  #open: { fd: number; path: ByteString; entry: Entry; inode: Inode; left: number; hash?: Hash } | undefined

  /** `path`: an empty directory that nobody else writes to. `hashing`: keep a digest of each file's content. */
  constructor(path: ByteString, budget: SpaceBudget, hashing: boolean) {
    this.root = { kind: 'directory', layer: 0, path, attributes: IMPLIED, children: new Map() }
    this.#budget = budget
    this.#hashing = hashing
    // A set-gid bit of the parent must not hand its group down into the image.
    chmodSync(onDisk(path), 0o700)
  }

  get entries(): number {
    return this.#entries
  }

  /** What follows is the next layer. In layers of OCI images, names with `.wh.` remove what is below. */
  beginLayer(whiteouts: boolean): void {
    this.#layer++
    this.#whiteouts = whiteouts
  }

  add(entry: Entry): void {
    if (++this.#entries > MAX_ENTRIES)
      throw new IceboxError('ImageInvalid', `the image has more than ${MAX_ENTRIES} files`)
    const names = split(entry.path)
    const last = names.pop()
    if (last === undefined) {
      if (entry.kind !== 'directory') throw invalid(entry.path, `is the root but is a ${entry.kind}`)
      this.root.attributes = attributesOf(entry)
      return
    }
    if (this.#whiteouts && last.startsWith('.wh.')) this.#whiteout(names, last, entry)
    else this.#place(this.#descend(names, entry.path, true), last, entry)
  }

  write(chunk: Uint8Array): void {
    const open = this.#open
    if (open === undefined) return
    this.#budget.spend(chunk.length)
    open.hash?.update(chunk)
    open.left -= chunk.length
    for (let at = 0; at < chunk.length; ) at += writeSync(open.fd, chunk, at)
  }

  end(): void {
    const open = this.#open
    if (open === undefined) return
    this.#open = undefined
    const { fd, inode } = open
    try {
      // The owner first: changing it clears the set-uid bit and file capabilities.
      fchownSync(fd, inode.uid, inode.gid)
      fchmodSync(fd, inode.mode)
      this.#setXattrs(open.path, inode)
      futimesSync(fd, inode.mtime, inode.mtime)
    } finally {
      closeSync(fd)
    }
    if (open.hash !== undefined) inode.content = open.hash.digest('hex')
  }

  /** Lets go of a file that is open because its source failed. */
  abandon(): void {
    if (this.#open !== undefined) closeSync(this.#open.fd)
    this.#open = undefined
  }

  /** Gives the directories their modes and times, which placing their children would have changed. */
  finish(): void {
    const visit = (directory: Directory): void => {
      for (const child of directory.children.values()) if (child.kind === 'directory') visit(child)
      const path = onDisk(directory.path)
      const { uid, gid, mode, mtime } = directory.attributes
      lchownSync(path, uid, gid)
      chmodSync(path, mode)
      this.#setXattrs(directory.path, directory.attributes)
      utimesSync(path, mtime, mtime)
    }
    visit(this.root)
  }

  #place(parent: Directory, name: ByteString, entry: Entry): void {
    const path = `${parent.path}/${name}`
    const present = parent.children.get(name)
    if (entry.kind === 'directory') {
      if (present?.kind === 'directory') {
        present.attributes = attributesOf(entry)
        present.layer = this.#layer
        return
      }
      this.#remove(parent, name, present)
      this.#makeDirectory(parent, name, attributesOf(entry))
      return
    }
    if (entry.kind === 'hardlink') {
      if (this.#find(entry).leaf === present) return
      this.#remove(parent, name, present)
      // Again, because what was removed may have been a directory with the other name in it.
      const source = this.#find(entry)
      linkSync(onDisk(source.path), onDisk(path))
      parent.children.set(name, { kind: 'leaf', layer: this.#layer, inode: source.leaf.inode })
      return
    }
    this.#remove(parent, name, present)
    const inode: Inode = {
      kind: entry.kind,
      ...attributesOf(entry),
      size: entry.size,
      target: entry.target,
      major: entry.major,
      minor: entry.minor,
    }
    parent.children.set(name, { kind: 'leaf', layer: this.#layer, inode })
    if (entry.kind === 'file') {
      this.#budget.spend(0)
      const fd = openSync(onDisk(path), 'wx', 0o600)
      this.#open = {
        fd,
        path,
        entry,
        inode,
        left: entry.size,
        ...(this.#hashing ? { hash: createHash('sha256') } : {}),
      }
      return
    }
    if (entry.kind === 'symlink') {
      if (entry.target === '' || entry.target.includes('\0')) throw invalid(entry.path, 'is a symbolic link to nothing')
      symlinkSync(onDisk(entry.target), onDisk(path))
    } else {
      const type = entry.kind === 'fifo' ? S_IFIFO : entry.kind === 'block' ? S_IFBLK : S_IFCHR
      mknod(toBytes(path), type | 0o600, entry.major, entry.minor)
    }
    lchownSync(onDisk(path), inode.uid, inode.gid)
    if (entry.kind !== 'symlink') chmodSync(onDisk(path), inode.mode)
    this.#setXattrs(path, inode)
    lutimesSync(onDisk(path), inode.mtime, inode.mtime)
  }

  #setXattrs(path: ByteString, attributes: Attributes): void {
    for (const { name, value } of attributes.xattrs) setXattr(toBytes(path), name, value)
  }

  #makeDirectory(parent: Directory, name: ByteString, attributes: Attributes): Directory {
    const path = `${parent.path}/${name}`
    mkdirSync(onDisk(path), 0o700)
    const made: Directory = { kind: 'directory', layer: this.#layer, path, attributes, children: new Map() }
    parent.children.set(name, made)
    return made
  }

  #remove(parent: Directory, name: ByteString, present: Node | undefined): void {
    if (present === undefined) return
    rmSync(onDisk(`${parent.path}/${name}`), { recursive: true, force: true })
    parent.children.delete(name)
  }

  #whiteout(names: ByteString[], marker: ByteString, entry: Entry): void {
    const opaque = marker === '.wh..wh..opq'
    // The other names in this form are the bookkeeping of AUFS.
    if (!opaque && marker.startsWith('.wh..wh.')) return
    const name = marker.slice('.wh.'.length)
    if (name === '' || name === '.' || name === '..') throw invalid(entry.path, 'removes no name')
    const directory = this.#descend(names, entry.path, true)
    if (opaque) {
      for (const [child, node] of [...directory.children]) this.#hide(directory, child, node)
      directory.layer = this.#layer
      return
    }
    const present = directory.children.get(name)
    if (present !== undefined) this.#hide(directory, name, present)
  }

  /** Removes what lower layers put there. What this layer put below stays, whichever came first in the archive. */
  #hide(parent: Directory, name: ByteString, node: Node): void {
    if (!this.#touchedNow(node)) this.#remove(parent, name, node)
    else if (node.kind === 'directory') for (const [child, below] of [...node.children]) this.#hide(node, child, below)
  }

  #touchedNow(node: Node): boolean {
    if (node.layer === this.#layer) return true
    return node.kind === 'directory' && [...node.children.values()].some((child) => this.#touchedNow(child))
  }

  #find(entry: Entry): { leaf: Leaf; path: ByteString } {
    const names = split(entry.target)
    const last = names.pop()
    const parent = last === undefined ? undefined : this.#descend(names, entry.path, false)
    const leaf = last === undefined ? undefined : parent?.children.get(last)
    if (parent === undefined || leaf?.kind !== 'leaf')
      throw invalid(
        entry.path,
        `is a hard link to ${JSON.stringify(readable(entry.target))}, which is no file of the image`,
      )
    return { leaf, path: `${parent.path}/${last}` }
  }

  /**
   * The directory a path leads to, as the image itself would see it. Symbolic links are followed within the image, but not
   * upwards out of it, not to what does not exist, and not from the root when the same layer brought them: no honest
   * archive has those, and each is a known attack.
   */
  #descend(names: ByteString[], entry: ByteString, make: boolean): Directory {
    const trail = [this.root]
    // Names of the path itself may be made; names that a link brought in may not.
    const queue = names.map((name) => ({ name, linked: false }))
    let followed = 0
    for (let step = queue.shift(); step !== undefined; step = queue.shift()) {
      const here = trail.at(-1) ?? this.root
      if (step.name === '..') {
        if (trail.length === 1) throw invalid(entry, 'leaves the image through a symbolic link')
        trail.pop()
        continue
      }
      const child = here.children.get(step.name)
      if (child?.kind === 'directory') trail.push(child)
      else if (child === undefined) {
        if (!make || step.linked) throw invalid(entry, 'goes through a directory that the image does not have')
        trail.push(this.#makeDirectory(here, step.name, IMPLIED))
      } else if (child.inode.kind === 'symlink') {
        if (++followed > MAX_LINKS_FOLLOWED) throw invalid(entry, 'goes through too many symbolic links')
        const { target } = child.inode
        if (target.startsWith('/')) {
          if (child.layer === this.#layer)
            throw invalid(
              entry,
              `goes through a symbolic link to ${JSON.stringify(readable(target))} of the same archive`,
            )
          trail.length = 1
        }
        const linked = target.split('/').filter((name) => name !== '' && name !== '.')
        queue.unshift(...linked.map((name) => ({ name, linked: true })))
      } else throw invalid(entry, 'goes through a file as if it were a directory')
    }
    return trail.at(-1) ?? this.root
  }
}

/** Directories that entries lie in but that no entry describes. */
const IMPLIED: Attributes = { mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: [] }

const MAX_ID = 0xffff_fffe

function attributesOf(entry: Entry): Attributes {
  const { mode, uid, gid, mtime, xattrs } = entry
  for (const id of [uid, gid])
    if (!Number.isInteger(id) || id < 0 || id > MAX_ID) throw invalid(entry.path, `belongs to the impossible id ${id}`)
  return { mode, uid, gid, mtime, xattrs }
}

/** The names in a path from the root of the image. Throws `ImageInvalid` for what could mean another place. */
function split(path: ByteString): ByteString[] {
  if (path.includes('\0')) throw invalid(path, 'has a NUL in its name')
  const names = path.split('/').filter((name) => name !== '' && name !== '.')
  for (const name of names) {
    if (name === '..') throw invalid(path, 'has ".." in its path')
    if (name.length > MAX_NAME) throw invalid(path, `has a name of more than ${MAX_NAME} bytes`)
  }
  return names
}
