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
    if (kind === 'file') opened(at, stat, name, (fd) => content(fd, entry, buffer, sink))
    else if (kind === 'directory' && stat.dev === root.dev)
      opened(at, stat, name, (fd) => {
        // Through the directory itself: a link that takes its name meanwhile leads nowhere.
        const place = `/proc/self/fd/${fd}`
        for (const child of readdirSync(place, 'latin1').sort())
          visit(`${place}/${child}`, name === '' ? child : `${name}/${child}`)
      })
  }
  visit(path, '')
}

function timeOf(nanoseconds: bigint): Time {
  const rest = ((nanoseconds % BILLION) + BILLION) % BILLION
  return { seconds: Number((nanoseconds - rest) / BILLION), nanoseconds: Number(rest) }
}

const changed = (name: ByteString): IceboxError =>
  new IceboxError('Conflict', `${readable(name) || 'the directory'} was changed while the image was made of it`)

/** Opens what was looked at, and nothing that has taken its name since. */
function opened(at: Buffer, { dev, ino }: BigIntStats, name: ByteString, work: (fd: number) => void): void {
  let fd: number
  try {
    // Without waiting: it may be a FIFO by now.
    fd = openSync(at, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (thrown) {
    if (thrown instanceof Error && 'code' in thrown && ['ELOOP', 'ENOENT', 'ENXIO'].includes(String(thrown.code)))
      throw changed(name)
    throw thrown
  }
  try {
    const found = fstatSync(fd, { bigint: true })
    if (found.dev !== dev || found.ino !== ino) throw changed(name)
    work(fd)
  } finally {
    closeSync(fd)
  }
}

function content(fd: number, { size, path }: Entry, buffer: Buffer, sink: EntrySink): void {
  let left = size
  while (left > 0) {
    const count = readSync(fd, buffer, 0, Math.min(CHUNK, left), null)
    if (count === 0) throw changed(path)
    sink.write(buffer.subarray(0, count))
    left -= count
  }
  if (fstatSync(fd).size !== size) throw changed(path)
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
