import {
  type BigIntStats,
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
} from 'node:fs'
import { IceboxError } from '@icebox/model'
import { getXattrs } from '@icebox/snapshot'
import { type ByteString, type Entry, type EntryKind, type EntrySink, readable, type Time, toBytes } from './entry.ts'

const CHUNK = 1_048_576
const BILLION = 1_000_000_000n

/** What the kernel packs into a device number, taken apart. */
const major = (device: bigint): number => Number(((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n))
const minor = (device: bigint): number => Number((device & 0xffn) | ((device >> 12n) & 0xffffff00n))

/**
 * Gives a directory of this machine to a sink, sorted by name. Other file systems mounted in it are empty directories, sockets
 * are left out, and so is `except` (`dev:ino` of where the copy is being written).
 * Throws `Conflict` when a file changes while it is read.
 */
export function readDirectory(path: ByteString, except: string, sink: EntrySink): void {
  const buffer = Buffer.alloc(CHUNK)
  const root = lstatSync(toBytes(path), { bigint: true })
  /** First name of each inode that has several. */
  const linked = new Map<string, ByteString>()

  const visit = (place: ByteString, name: ByteString): void => {
    const at = toBytes(place)
    const stat = lstatSync(at, { bigint: true })
    const kind = kindOf(stat)
    if (kind === undefined || `${stat.dev}:${stat.ino}` === except) return
    const entry: Entry = {
      kind,
      path: name,
      size: kind === 'file' ? Number(stat.size) : 0,
      target: kind === 'symlink' ? readlinkSync(at, 'latin1') : '',
      mode: Number(stat.mode) & 0o7777,
      uid: Number(stat.uid),
      gid: Number(stat.gid),
      mtime: timeOf(stat.mtimeNs),
      major: kind === 'character' || kind === 'block' ? major(stat.rdev) : 0,
      minor: kind === 'character' || kind === 'block' ? minor(stat.rdev) : 0,
      xattrs: [...getXattrs(at)].map(([key, value]) => ({ name: key, value })),
    }
    if (kind !== 'directory' && stat.nlink > 1n) {
      const inode = `${stat.dev}:${stat.ino}`
      const first = linked.get(inode)
      if (first !== undefined) {
        sink.add({ ...entry, kind: 'hardlink', size: 0, target: first })
        return
      }
      linked.set(inode, name)
    }
    sink.add(entry)
    if (kind === 'file') content(at, entry.size, buffer, sink)
    else if (kind === 'directory' && stat.dev === root.dev) children(at, stat, name)
  }
  /** Through the directory itself: a link that has taken its name meanwhile leads nowhere. */
  const children = (at: Buffer, { dev, ino }: BigIntStats, name: string): void => {
    const fd = openSync(at, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW)
    try {
      const opened = fstatSync(fd, { bigint: true })
      if (opened.dev !== dev || opened.ino !== ino) throw changed(at)
      const place = `/proc/self/fd/${fd}`
      for (const child of readdirSync(place, 'latin1').sort())
        visit(`${place}/${child}`, name === '' ? child : `${name}/${child}`)
    } finally {
      closeSync(fd)
    }
  }
  visit(path, '')
}

function timeOf(nanoseconds: bigint): Time {
  const rest = ((nanoseconds % BILLION) + BILLION) % BILLION
  return { seconds: Number((nanoseconds - rest) / BILLION), nanoseconds: Number(rest) }
}

const changed = (path: Buffer): IceboxError =>
  new IceboxError('Conflict', `${readable(path.toString('latin1'))} was changed while the image was made of it`)

function content(path: Buffer, size: number, buffer: Buffer, sink: EntrySink): void {
  const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW)
  try {
    let left = size
    while (left > 0) {
      const count = readSync(fd, buffer, 0, Math.min(CHUNK, left), null)
      if (count === 0) throw changed(path)
      sink.write(buffer.subarray(0, count))
      left -= count
    }
    if (fstatSync(fd).size !== size) throw changed(path)
  } finally {
    closeSync(fd)
  }
  sink.end()
}

function kindOf(
  stat: { isFile(): boolean; isDirectory(): boolean } & Record<Special, () => boolean>,
): EntryKind | undefined {
  if (stat.isFile()) return 'file'
  if (stat.isDirectory()) return 'directory'
  if (stat.isSymbolicLink()) return 'symlink'
  if (stat.isFIFO()) return 'fifo'
  if (stat.isCharacterDevice()) return 'character'
  return stat.isBlockDevice() ? 'block' : undefined
}
type Special = 'isSymbolicLink' | 'isFIFO' | 'isCharacterDevice' | 'isBlockDevice'
