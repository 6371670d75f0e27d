import type { MessageInitShape } from '@bufbuild/protobuf'
import { timestampFromDate } from '@bufbuild/protobuf/wkt'
import type { FileInfo } from '@icebox/model'
import { type EntryInfoSchema, FileType } from './generated/filesystem_pb.js'

/** Begins the names of the extended attributes that are metadata. */
export const METADATA_PREFIX = 'user.e2b.'

const TYPES: Readonly<Partial<Record<FileInfo['type'], FileType>>> = {
  file: FileType.FILE,
  directory: FileType.DIRECTORY,
  symlink: FileType.SYMLINK,
}

/** What stands before the nine letters, as Go writes modes down. */
const LETTERS: Readonly<Record<FileInfo['type'], string>> = {
  file: '',
  directory: 'd',
  symlink: 'L',
  fifo: 'p',
  socket: 'S',
  device: 'D',
}
const SPECIAL = [
  [0o4000, 'u'],
  [0o2000, 'g'],
  [0o1000, 't'],
] as const

export function permissionsOf({ type, mode }: Pick<FileInfo, 'type' | 'mode'>): string {
  const special = SPECIAL.map(([bit, letter]) => ((mode & bit) === 0 ? '' : letter)).join('')
  const bits = Array.from('rwxrwxrwx', (letter, index) => ((mode & (0o400 >> index)) === 0 ? '-' : letter)).join('')
  return `${LETTERS[type] + special || '-'}${bits}`
}

export const metadataOf = ({ xattrs = {} }: FileInfo): Record<string, string> =>
  Object.fromEntries(Object.entries(xattrs).map(([name, value]) => [name.slice(METADATA_PREFIX.length), value]))

/** A file as envd tells of it: of a symlink, type and mode are those of what it leads to. */
export function entryOf(info: FileInfo): MessageInitShape<typeof EntryInfoSchema> {
  const { name, path, size, owner, group, modifiedAt, leadsTo, target } = info
  const dangles = info.type === 'symlink' && info.xattrs !== undefined && leadsTo === undefined
  const { type, mode } = dangles ? { type: undefined, mode: 0 } : (leadsTo ?? info)
  return {
    name,
    path,
    type: (type && TYPES[type]) ?? FileType.UNSPECIFIED,
    size: BigInt(size),
    mode: mode & 0o777,
    permissions: permissionsOf(info),
    owner,
    group,
    modifiedTime: timestampFromDate(new Date(modifiedAt)),
    ...(info.type === 'symlink' ? { symlinkTarget: leadsTo?.path ?? target ?? path } : {}),
    metadata: metadataOf(info),
  }
}
