import { IceboxError } from '@icebox/model'
import { BLOCK_BYTES } from '../contents.ts'
import type { Xattr } from '../entry.ts'

const MAGIC = 0xea020000
const ENTRY_BYTES = 16
const BLOCK_HEADER_BYTES = 32
const ACLS = ['system.posix_acl_access', 'system.posix_acl_default']
const PREFIXES: readonly [string, number][] = [
  ['user.', 1],
  ['system.posix_acl_access', 2],
  ['system.posix_acl_default', 3],
  ['trusted.', 4],
  ['security.', 6],
  ['system.', 7],
]

interface Stored {
  index: number
  name: Buffer
  value: Buffer
}

/** What goes into an inode after its fixed part (`room` bytes), or else what fills a block of its own. */
export function encodeXattrs(xattrs: readonly Xattr[], room: number): { inside?: Buffer; block?: Buffer } {
  if (xattrs.length === 0) return {}
  const stored = xattrs.map(store).sort(inOrder)
  const inside = Buffer.alloc(room)
  inside.writeUInt32LE(MAGIC, 0)
  // Values are found by their distance from the first entry.
  if (fill(inside, 4, 4, stored) !== undefined) return { inside }
  const block = Buffer.alloc(BLOCK_BYTES)
  const hashes = fill(block, BLOCK_HEADER_BYTES, 0, stored)
  if (hashes === undefined)
    throw new IceboxError(
      'ImageInvalid',
      `the extended attributes of a file do not fit into ext4: ${xattrs.map(({ name }) => name).join(', ')}`,
    )
  block.writeUInt32LE(MAGIC, 0)
  block.writeUInt32LE(1, 4)
  block.writeUInt32LE(1, 8)
  block.writeUInt32LE(
    hashes.reduce((hash, one) => ((hash << 16) ^ (hash >>> 16) ^ one) >>> 0, 0),
    12,
  )
  return { block }
}

function store({ name, value }: Xattr): Stored {
  const [prefix, index] = PREFIXES.find(([start]) => name.startsWith(start)) ?? []
  if (prefix === undefined || index === undefined)
    throw new IceboxError('ImageInvalid', `ext4 cannot hold the extended attribute ${JSON.stringify(name)}`)
  return {
    index,
    name: Buffer.from(name.slice(prefix.length)),
    value: ACLS.includes(name) ? acl(value) : Buffer.from(value),
  }
}

/** The kernel searches a block in this order. */
const inOrder = (a: Stored, b: Stored): number =>
  a.index - b.index || a.name.length - b.name.length || Buffer.compare(a.name, b.name)

/** Entries grow from the front, values from the back. Gives the entries' hashes, undefined when they do not fit. */
function fill(into: Buffer, start: number, origin: number, stored: Stored[]): number[] | undefined {
  const hashes: number[] = []
  let at = start
  let valueAt = into.length
  for (const { index, name, value } of stored) {
    const padded = Math.ceil(value.length / 4) * 4
    const next = at + ENTRY_BYTES + Math.ceil(name.length / 4) * 4
    valueAt -= padded
    // Four zero bytes end the entries.
    if (next + 4 > valueAt) return undefined
    value.copy(into, valueAt)
    const hash = hashOf(name, into.subarray(valueAt, valueAt + padded))
    into.writeUInt8(name.length, at)
    into.writeUInt8(index, at + 1)
    into.writeUInt16LE(value.length === 0 ? 0 : valueAt - origin, at + 2)
    into.writeUInt32LE(value.length, at + 8)
    into.writeUInt32LE(hash, at + 12)
    name.copy(into, at + ENTRY_BYTES)
    hashes.push(hash)
    at = next
  }
  return hashes
}

function hashOf(name: Buffer, value: Buffer): number {
  let hash = 0
  for (const byte of name) hash = ((hash << 5) ^ (hash >>> 27) ^ byte) >>> 0
  for (let at = 0; at < value.length; at += 4) hash = ((hash << 16) ^ (hash >>> 16) ^ value.readUInt32LE(at)) >>> 0
  return hash
}

/** ext4 keeps access control lists in a shorter form than programs see: ids only where they say something. */
function acl(value: Uint8Array): Buffer {
  const bytes = Buffer.from(value)
  if (bytes.length < 4 || bytes.readUInt32LE(0) !== 2 || (bytes.length - 4) % 8 !== 0)
    throw new IceboxError('ImageInvalid', 'the access control list of a file is malformed')
  const parts = [Buffer.from([1, 0, 0, 0])]
  for (let at = 4; at < bytes.length; at += 8) {
    const named = bytes.readUInt16LE(at) === 0x02 || bytes.readUInt16LE(at) === 0x08
    parts.push(bytes.subarray(at, at + (named ? 8 : 4)))
  }
  return Buffer.concat(parts)
}
