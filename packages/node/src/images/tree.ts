import { createHash, type Hash } from 'node:crypto'
import { IceboxError, ITEM_BYTES } from '@icebox/model'
import type { ContentStore, Run } from './contents.ts'
import {
  type Attributes,
  type ByteString,
  type Entry,
  type EntrySink,
  EPOCH,
  fromBytes,
  readable,
  toBytes,
} from './entry.ts'
import { ImageMemory, imageMemoryBytes, NODE_BYTES } from './image-memory.ts'

/** Of all layers. What is not kept, such as duplicates, costs time all the same. */
const MAX_ENTRIES = 4_000_000
const MAX_NAME_BYTES = 255
const MAX_TARGET_BYTES = 4095
const MAX_LINKS_FOLLOWED = 40
/** Names gone through in the targets of symbolic links, by all entries together. */
const MAX_LINKED_STEPS = 50_000_000
/** The kernel's limit for a path, which an image that is to be used keeps to. */
const MAX_PATH_BYTES = 4096
const MAX_DEPTH = MAX_PATH_BYTES / 2
const MAX_ID = 0xffff_fffe
/** The kernel's limits for extended attributes: of a name, of a value, and of all names of one inode with their ends. */
const MAX_XATTR_NAME_BYTES = 255
const MAX_XATTR_BYTES = 65_536
const MAX_XATTR_LIST_BYTES = 65_536

/** What all names of one inode share. */
export interface Inode extends Attributes {
  kind: Exclude<Entry['kind'], 'directory' | 'hardlink'>
  size: number
  /** Of symlinks. */
  target: ByteString
  major: number
  minor: number
  /** How many names it has. */
  links: number
  /** Where its content lies. Files that are not empty have it. */
  run: Run | undefined
  /** Hex sha256 of its content, when the tree was told to compute them. */
  content: string | undefined
}

export interface Leaf {
  kind: 'leaf'
  layer: number
  inode: Inode
}

export interface Directory {
  kind: 'directory'
  layer: number
  /** The newest layer that put something below it. */
  newestBelow: number
  /** The newest layer of which it is known that nothing older than it is left below, but directories that it has put something into. */
  cleared: number
  attributes: Attributes
  children: Map<ByteString, Node>
}

export type Node = Leaf | Directory

const invalid = (entry: ByteString, why: string): IceboxError =>
  new IceboxError('ImageInvalid', `the image has ${JSON.stringify(readable(entry))}, which ${why}`)

/**
 * A root file system being put together from layers, in memory except for the contents of its files. Nothing of it exists
 * on the host under its own name, so that nothing an image says can reach outside, whoever runs this.
 */
export class Tree implements EntrySink {
  readonly root: Directory
  readonly #contents: ContentStore
  readonly #hashing: boolean
  readonly #memory: ImageMemory
  #layer = 0
  #whiteouts = false
  #entries = 0
  #linkedSteps = 0
  #open: { inode: Inode; left: number; hash: Hash | undefined } | undefined

  /** `hashing`: keep a digest of each file's content. */
  constructor(contents: ContentStore, hashing: boolean, memory: ImageMemory = new ImageMemory(imageMemoryBytes())) {
    this.root = directoryOf(0, IMPLIED)
    this.#memory = memory
    this.#contents = contents
    this.#hashing = hashing
  }

  /** What follows is the next layer. In layers of OCI images, names with `.wh.` remove what is below. */
  beginLayer(whiteouts: boolean): void {
    this.#layer++
    this.#whiteouts = whiteouts
  }

  add(entry: Entry): void {
    if (++this.#entries > MAX_ENTRIES)
      throw new IceboxError('ImageInvalid', `the image has more than ${MAX_ENTRIES} entries`)
    const names = split(entry.path)
    const last = names.pop()
    if (last === undefined) {
      if (entry.kind !== 'directory') throw invalid(entry.path, `is the root but is a ${entry.kind}`)
      this.root.attributes = this.#attributes(entry)
    } else if (this.#whiteouts && last.startsWith('.wh.')) this.#whiteout(names, last, entry)
    else {
      const trail = this.#make(names, entry.path)
      for (const directory of trail) directory.newestBelow = this.#layer
      this.#place(trail.at(-1) ?? this.root, last, entry)
    }
  }

  write(chunk: Uint8Array): void {
    const open = this.#open
    if (open === undefined) return
    open.left -= chunk.length
    open.hash?.update(chunk)
    this.#contents.write(chunk)
  }

  end(): void {
    const open = this.#open
    if (open === undefined) return
    this.#open = undefined
    if (open.left !== 0) throw new IceboxError('ImageInvalid', 'a file of the image does not have the size it claims')
    if (open.inode.run !== undefined) this.#contents.end()
    open.inode.content = open.hash?.digest('hex')
  }

  #place(parent: Directory, name: ByteString, entry: Entry): void {
    const present = parent.children.get(name)
    if (entry.kind === 'directory') {
      if (present?.kind === 'directory') {
        present.attributes = this.#attributes(entry)
        present.layer = this.#layer
      } else {
        this.#remove(parent, name, present)
        this.#makeDirectory(parent, name, this.#attributes(entry))
      }
      return
    }
    if (entry.kind === 'hardlink') {
      if (this.#find(entry) === present) return
      this.#remove(parent, name, present)
      // Again, because what was removed may have been a directory with the other name in it.
      const { inode } = this.#find(entry)
      inode.links++
      this.#keep(parent, name, { kind: 'leaf', layer: this.#layer, inode })
      return
    }
    this.#remove(parent, name, present)
    const { kind, size, target, major, minor } = entry
    if (kind === 'symlink' && (target === '' || target.includes('\0') || target.length > MAX_TARGET_BYTES))
      throw invalid(entry.path, 'is a symbolic link to an impossible path')
    this.#memory.keep(target.length)
    const attributes = this.#attributes(entry)
    const run = size > 0 ? this.#contents.begin(size) : undefined
    const inode: Inode = {
      kind,
      ...attributes,
      size,
      target: own(target),
      major,
      minor,
      links: 1,
      run,
      content: undefined,
    }
    this.#keep(parent, name, { kind: 'leaf', layer: this.#layer, inode })
    if (kind === 'file') this.#open = { inode, left: size, hash: this.#hashing ? createHash('sha256') : undefined }
  }

  #makeDirectory(parent: Directory, name: ByteString, attributes: Attributes): Directory {
    const made = directoryOf(this.#layer, attributes)
    this.#keep(parent, name, made)
    return made
  }

  #keep(parent: Directory, name: ByteString, node: Node): void {
    this.#memory.keep(NODE_BYTES + name.length)
    parent.children.set(own(name), node)
  }

  #attributes(entry: Entry): Attributes {
    const attributes = attributesOf(entry)
    this.#memory.keep(bytesOfXattrs(entry))
    return attributes
  }

  #remove(parent: Directory, name: ByteString, present: Node | undefined): void {
    if (present === undefined) return
    parent.children.delete(name)
    if (present.kind === 'directory')
      for (const [child, node] of [...present.children]) this.#remove(present, child, node)
    else if (--present.inode.links === 0 && present.inode.run !== undefined) this.#contents.free(present.inode.run)
  }

  #whiteout(names: ByteString[], marker: ByteString, entry: Entry): void {
    const opaque = marker === '.wh..wh..opq'
    // The other names in this form are the bookkeeping of AUFS.
    if (!opaque && marker.startsWith('.wh..wh.')) return
    const name = marker.slice('.wh.'.length)
    if (name === '' || name === '.' || name === '..') throw invalid(entry.path, 'removes no name')
    const trail = this.#descend(names, entry.path, undefined)
    const directory = trail?.at(-1)
    // Tools remove what was in a directory even where its own layer puts a file in its place.
    if (trail === undefined || directory === undefined) return
    if (opaque) {
      this.#clear(directory)
      directory.layer = this.#layer
      for (const above of trail) above.newestBelow = this.#layer
      return
    }
    const present = directory.children.get(name)
    if (present !== undefined) this.#hide(directory, name, present)
  }

  /** Removes what lower layers put there. What this layer put below stays, whichever came first in the archive. */
  #hide(parent: Directory, name: ByteString, node: Node): void {
    if (node.layer !== this.#layer && (node.kind === 'leaf' || node.newestBelow !== this.#layer))
      this.#remove(parent, name, node)
    else if (node.kind === 'directory') this.#clear(node)
  }

  /** Once for each layer: many whiteouts of one directory cost no more than the first. */
  #clear(directory: Directory): void {
    if (directory.cleared === this.#layer) return
    directory.cleared = this.#layer
    for (const [child, node] of [...directory.children]) this.#hide(directory, child, node)
  }

  #find(entry: Entry): Leaf {
    const names = split(entry.target)
    const last = names.pop()
    const leaf =
      last === undefined ? undefined : this.#descend(names, entry.path, undefined)?.at(-1)?.children.get(last)
    if (leaf?.kind === 'leaf') return leaf
    throw invalid(
      entry.path,
      `is a hard link to ${JSON.stringify(readable(entry.target))}, which is no file of the image`,
    )
  }

  /** The directories down to that of a path, made where they are missing. */
  #make(names: ByteString[], entry: ByteString): Directory[] {
    const trail = this.#descend(names, entry, (here, name) => this.#makeDirectory(here, name, IMPLIED))
    if (trail === undefined) throw invalid(entry, 'goes through a file as if it were a directory')
    return trail
  }

  /**
   * The directories that a path leads through, the last one last, as the image itself would see it; undefined when it is missing and not to be made, or is
   * a file. Symbolic links are followed within the image, but not upwards out of it, not to what does not exist, and not
   * from the root when the same layer brought them: no honest archive has those, and each is a known attack.
   */
  #descend(
    names: ByteString[],
    entry: ByteString,
    make: ((here: Directory, name: ByteString) => Directory) | undefined,
  ): Directory[] | undefined {
    const trail = [this.root]
    /** Bytes of the path down to each of the trail, which links may lead beyond what an entry says. */
    const lengths = [0]
    const enter = (directory: Directory, name: ByteString) => {
      trail.push(directory)
      lengths.push((lengths.at(-1) ?? 0) + name.length + 1)
    }
    const queue = names.map((name) => ({ name, linked: false }))
    let followed = 0
    for (let step = queue.shift(); step !== undefined; step = queue.shift()) {
      const here = trail.at(-1) ?? this.root
      if (trail.length > MAX_DEPTH || (lengths.at(-1) ?? 0) + step.name.length >= MAX_PATH_BYTES)
        throw invalid(entry, 'lies too deep')
      if (step.name === '..') {
        if (trail.length === 1) throw invalid(entry, 'leaves the image through a symbolic link')
        trail.pop()
        lengths.pop()
        continue
      }
      const child = here.children.get(step.name)
      if (child?.kind === 'directory') enter(child, step.name)
      else if (child?.inode.kind === 'symlink') {
        if (++followed > MAX_LINKS_FOLLOWED) throw invalid(entry, 'goes through too many symbolic links')
        const { target } = child.inode
        if (target.startsWith('/')) {
          if (child.layer === this.#layer)
            throw invalid(
              entry,
              `goes through a symbolic link to ${JSON.stringify(readable(target))} of the same archive`,
            )
          trail.length = 1
          lengths.length = 1
        }
        const linked = target.split('/').filter((name) => name !== '' && name !== '.')
        this.#linkedSteps += linked.length
        if (this.#linkedSteps > MAX_LINKED_STEPS) throw invalid(entry, 'and others go through too many symbolic links')
        queue.unshift(...linked.map((name) => ({ name, linked: true })))
      } else if (step.linked) throw invalid(entry, 'goes through a symbolic link to no directory of the image')
      else if (child !== undefined || make === undefined) return undefined
      else enter(make(here, step.name), step.name)
    }
    return trail
  }
}

/** Directories that entries lie in but that no entry describes. */
const IMPLIED: Attributes = { mode: 0o755, uid: 0, gid: 0, mtime: EPOCH, xattrs: [] }

const directoryOf = (layer: number, attributes: Attributes): Directory => ({
  kind: 'directory',
  layer,
  newestBelow: layer,
  cleared: layer,
  attributes,
  children: new Map(),
})

/** A text of its own: a part of another one keeps that in memory. */
const own = (text: ByteString): ByteString => fromBytes(toBytes(text))

/** What they cost. Throws `ImageInvalid` for what Linux lets no file have. */
function bytesOfXattrs({ path, xattrs }: Entry): number {
  let list = 0
  let bytes = 0
  for (const { name, value } of xattrs) {
    const length = Buffer.byteLength(name)
    if (length === 0 || length > MAX_XATTR_NAME_BYTES || name.includes('\0') || value.length > MAX_XATTR_BYTES)
      throw invalid(path, 'has an extended attribute that Linux cannot hold')
    list += length + 1
    bytes += ITEM_BYTES + length + value.length
  }
  if (list > MAX_XATTR_LIST_BYTES) throw invalid(path, 'has more extended attributes than Linux can hold')
  return bytes
}

function attributesOf(entry: Entry): Attributes {
  const { uid, gid, mtime, xattrs } = entry
  // Linux knows no other for them, whatever an archive says.
  const mode = entry.kind === 'symlink' ? 0o777 : entry.mode
  for (const id of [uid, gid])
    if (!Number.isInteger(id) || id < 0 || id > MAX_ID) throw invalid(entry.path, `belongs to the impossible id ${id}`)
  return { mode, uid, gid, mtime, xattrs }
}

/** The names in a path from the root of the image. Throws `ImageInvalid` for what could mean another place. */
function split(path: ByteString): ByteString[] {
  if (path.includes('\0')) throw invalid(path, 'has a NUL in its name')
  if (path.length > MAX_PATH_BYTES) throw invalid(path.slice(0, 60), `has a path of more than ${MAX_PATH_BYTES} bytes`)
  const names = path.split('/').filter((name) => name !== '' && name !== '.')
  for (const name of names) {
    if (name === '..') throw invalid(path, 'has ".." in its path')
    if (name.length > MAX_NAME_BYTES) throw invalid(path, `has a name of more than ${MAX_NAME_BYTES} bytes`)
  }
  return names
}
