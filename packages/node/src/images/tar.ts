import { IceboxError } from '@icebox/model'
import {
  type ByteString,
  type Entry,
  type EntryKind,
  type EntrySink,
  fromBytes,
  readable,
  type Time,
  type Xattr,
} from './entry.ts'

const BLOCK = 512
/** Of all extension headers of one entry: more than any real one needs, and room for all attributes that Linux lets a file have. */
const MAX_EXTENSION = 1_048_576
/** Of what a global header says, which is looked at for every entry that follows. */
const MAX_GLOBAL = 16_384
/** The kernel's limit for paths. */
const MAX_PATH = 4096
const XATTR_PREFIX = 'SCHILY.xattr.'
/** Digits of the length of a PAX record. */
const MAX_DIGITS = 9
/** Of a keyword, so much is kept that one which is too long is still seen to be. */
const MAX_KEY = 512

const KINDS: Readonly<Record<string, EntryKind>> = {
  '\0': 'file',
  '0': 'file',
  '7': 'file',
  '1': 'hardlink',
  '2': 'symlink',
  '3': 'character',
  '4': 'block',
  '5': 'directory',
  '6': 'fifo',
}

const invalid = (what: string): IceboxError => new IceboxError('ImageInvalid', `the tar archive is not valid: ${what}`)

/** What is made use of. All else, such as comments, is not kept. */
const KEYWORDS = new Set(['path', 'linkpath', 'size', 'uid', 'gid', 'mtime'])
const used = (key: string): boolean =>
  KEYWORDS.has(key) || key.startsWith(XATTR_PREFIX) || key.startsWith('GNU.sparse.')

/** What the extension records before an entry say about it, by PAX keyword. Values are bytes. */
type Extensions = Map<string, Uint8Array>

type State = 'header' | 'extension' | 'content' | 'padding' | 'ended'

/**
 * Reads a tar archive (ustar, PAX, GNU) from chunks of any size and gives its entries to a sink, synchronously.
 * It reads values and names as bytes, which the binary xattrs of file capabilities need.
 * Throws `ImageInvalid`. Sparse and multi-volume archives are refused.
 */
export class TarReader {
  readonly #sink: EntrySink
  readonly #header = Buffer.alloc(BLOCK)
  #filled = 0
  #state: State = 'header'
  /** Bytes left of the content, extension or padding. */
  #left = 0
  #padding = 0
  #extensionType = ''
  #extension = Buffer.alloc(0)
  #global: Extensions = new Map()
  #globalBytes = 0
  #next: Extensions = new Map()
  /** Of the extension headers since the last entry. */
  #nextBytes = 0

  constructor(sink: EntrySink) {
    this.#sink = sink
  }

  /** Takes what follows in the archive. What comes after its end is ignored. */
  write(chunk: Buffer): void {
    let at = 0
    while (at < chunk.length && this.#state !== 'ended') {
      if (this.#state === 'header') {
        const taken = Math.min(BLOCK - this.#filled, chunk.length - at)
        if (taken === BLOCK) this.#onHeader(chunk.subarray(at, at + BLOCK))
        else {
          chunk.copy(this.#header, this.#filled, at, at + taken)
          this.#filled += taken
          if (this.#filled === BLOCK) {
            this.#filled = 0
            this.#onHeader(this.#header)
          }
        }
        at += taken
        continue
      }
      const part = chunk.subarray(at, at + this.#left)
      at += part.length
      this.#left -= part.length
      if (this.#state === 'content') this.#sink.write(part)
      else if (this.#state === 'extension')
        part.copy(this.#extension, this.#extension.length - this.#left - part.length)
      if (this.#left === 0) this.#onEndOfPart()
    }
  }

  /** Leaves out the content of the entry just added: the next `write` is what follows these bytes. */
  skip(): number {
    const skipped = this.#state === 'content' ? this.#left + this.#padding : 0
    if (skipped > 0) this.#state = 'header'
    return skipped
  }

  get ended(): boolean {
    return this.#state === 'ended'
  }

  /**
   * Call when the archive has no more bytes. `marked`: the end must be marked as the format says; without a digest that
   * vouches for the archive, one cut off between two entries could not be told from a whole one.
   */
  finish(marked: boolean): void {
    if (this.#state === 'ended') return
    // Some tools that make layers write neither the filling of the last block nor the end.
    const between =
      this.#state === 'padding' || (this.#state === 'header' && this.#filled === 0 && this.#next.size === 0)
    if (!between || marked) throw invalid('it is truncated')
  }

  #onEndOfPart(): void {
    if (this.#state === 'extension') this.#onExtension()
    if (this.#state === 'content') this.#sink.end()
    if (this.#state !== 'padding' && this.#padding > 0) {
      this.#state = 'padding'
      this.#left = this.#padding
    } else this.#state = 'header'
  }

  #onHeader(header: Buffer): void {
    let sum = 8 * 0x20
    for (let i = 0; i < 148; i++) sum += header[i] ?? 0
    for (let i = 156; i < BLOCK; i++) sum += header[i] ?? 0
    if (sum === 8 * 0x20) {
      this.#state = 'ended'
      return
    }
    if (sum !== number(header, 148, 8)) throw invalid('a header does not have its checksum (is this a tar archive?)')
    const type = String.fromCharCode(header[156] ?? 0)
    const size = number(header, 124, 12)
    if (type === 'x' || type === 'g' || type === 'L' || type === 'K') {
      this.#nextBytes += BLOCK + size
      if (size < 0 || this.#nextBytes > MAX_EXTENSION)
        throw invalid(`the header extensions of an entry have more than ${MAX_EXTENSION} bytes`)
      this.#extensionType = type
      this.#extension = Buffer.alloc(size)
      this.#begin('extension', size)
    } else this.#onEntry(header, type, size)
  }

  #begin(state: 'extension' | 'content', size: number): void {
    this.#state = state
    this.#left = size
    this.#padding = (BLOCK - (size % BLOCK)) % BLOCK
    if (size === 0) this.#onEndOfPart()
  }

  #onExtension(): void {
    const bytes = this.#extension
    this.#extension = Buffer.alloc(0)
    if (this.#extensionType === 'x') for (const [key, value] of records(bytes)) this.#next.set(key, value)
    else if (this.#extensionType === 'g') {
      for (const [key, value] of records(bytes)) {
        this.#globalBytes += key.length + value.length
        this.#global.set(key, value)
      }
      if (this.#globalBytes > MAX_GLOBAL) throw invalid(`its global headers say more than ${MAX_GLOBAL} bytes`)
    } else this.#next.set(this.#extensionType === 'L' ? 'path' : 'linkpath', withinPath(untilNul(bytes)))
  }

  #onEntry(header: Buffer, type: string, headerSize: number): void {
    const extensions = this.#global.size === 0 ? this.#next : new Map([...this.#global, ...this.#next])
    this.#next = new Map()
    this.#nextBytes = 0
    const path = text(extensions.get('path')) ?? name(header)
    const kind = type !== '5' && KINDS[type] === 'file' && path.endsWith('/') ? 'directory' : KINDS[type]
    if (kind === undefined)
      throw invalid(
        type === 'S'
          ? `${readable(path)} is a sparse file of GNU tar, which is not supported`
          : `${readable(path)} has the unknown type ${JSON.stringify(type)}`,
      )
    const declared = decimal(extensions, 'size') ?? headerSize
    if (!Number.isSafeInteger(declared) || declared < 0) throw invalid(`${readable(path)} has an impossible size`)
    // Links, directories and devices have no content whatever their size field says.
    const size = kind === 'file' ? declared : 0
    const xattrs: Xattr[] = []
    for (const [key, value] of extensions) {
      if (key.startsWith(XATTR_PREFIX)) xattrs.push({ name: key.slice(XATTR_PREFIX.length), value })
      else if (key.startsWith('GNU.sparse.'))
        throw invalid(`${readable(path)} is a sparse file of GNU tar, which is not supported`)
    }
    const entry: Entry = {
      kind,
      path,
      size,
      target:
        kind === 'symlink' || kind === 'hardlink' ? (text(extensions.get('linkpath')) ?? field(header, 157, 100)) : '',
      mode: number(header, 100, 8) & 0o7777,
      uid: decimal(extensions, 'uid') ?? number(header, 108, 8),
      gid: decimal(extensions, 'gid') ?? number(header, 116, 8),
      mtime: paxTime(extensions) ?? { seconds: number(header, 136, 12), nanoseconds: 0 },
      // Archives older than POSIX may have anything here.
      major: kind === 'character' || kind === 'block' ? number(header, 329, 8) : 0,
      minor: kind === 'character' || kind === 'block' ? number(header, 337, 8) : 0,
      xattrs,
    }
    this.#sink.add(entry)
    if (kind === 'file') this.#begin('content', size)
    else this.#state = 'header'
  }
}

/** Text of a field up to its first NUL. */
const field = (header: Buffer, offset: number, length: number): ByteString =>
  fromBytes(untilNul(header.subarray(offset, offset + length)))

function untilNul(bytes: Buffer): Buffer {
  const end = bytes.indexOf(0)
  return end < 0 ? bytes : bytes.subarray(0, end)
}

function withinPath(bytes: Buffer): Buffer {
  if (bytes.length > MAX_PATH) throw invalid(`a path has more than ${MAX_PATH} bytes`)
  return bytes
}

const text = (value: Uint8Array | undefined): ByteString | undefined =>
  value === undefined ? undefined : fromBytes(value)

function name(header: Buffer): ByteString {
  const own = field(header, 0, 100)
  // Only POSIX archives have a prefix there; GNU ones have times.
  const posix = header.toString('latin1', 257, 263) === 'ustar\0'
  const prefix = posix ? field(header, 345, 155) : ''
  return prefix === '' ? own : `${prefix}/${own}`
}

/** A number of a header: octal digits, or GNU's base 256 when the first bit is set. */
function number(header: Buffer, offset: number, length: number): number {
  const first = header[offset] ?? 0
  if ((first & 0x80) !== 0) {
    let value = (first & 0x40) === 0 ? first & 0x3f : (first & 0x3f) - 0x40
    for (let i = 1; i < length; i++) value = value * 256 + (header[offset + i] ?? 0)
    if (!Number.isSafeInteger(value)) throw invalid('a number in a header is too large')
    return value
  }
  const digits = header
    .toString('latin1', offset, offset + length)
    .replace(/\0.*$/s, '')
    .trim()
  if (digits === '') return 0
  if (!/^[0-7]+$/.test(digits)) throw invalid('a number in a header is not octal')
  return Number.parseInt(digits, 8)
}

function decimal(extensions: Extensions, key: string): number | undefined {
  const value = text(extensions.get(key))
  if (value === undefined || value === '') return undefined
  const parsed = Number(value)
  if (!/^-?[0-9]+(\.[0-9]*)?$/.test(value) || Math.abs(parsed) > Number.MAX_SAFE_INTEGER)
    throw invalid(`PAX ${key} is not a number`)
  return parsed
}

/** Exactly: a time with nanoseconds does not fit into one floating-point number. */
function paxTime(extensions: Extensions): Time | undefined {
  const seconds = decimal(extensions, 'mtime')
  if (seconds === undefined) return undefined
  const [, fraction = ''] = (text(extensions.get('mtime')) ?? '').split('.')
  const nanoseconds = Number(fraction.slice(0, 9).padEnd(9, '0'))
  // What is before 1970 counts up from the whole second before.
  const whole = Math.trunc(seconds)
  return seconds < 0 && nanoseconds > 0
    ? { seconds: whole - 1, nanoseconds: 1e9 - nanoseconds }
    : { seconds: whole, nanoseconds }
}

/** PAX records: `<length> <key>=<value>\n`, the length being that of the whole record in decimal. */
function* records(bytes: Buffer): Generator<[string, Uint8Array]> {
  let at = 0
  while (at < bytes.length) {
    // Looks no further than a record may reach, so that many records cost no more than their bytes.
    const space = bytes.subarray(at, at + MAX_DIGITS + 1).indexOf(0x20) + at
    const digits = space < at ? '' : bytes.toString('latin1', at, space)
    const end = at + Number(digits)
    const equals = bytes.subarray(0, end).indexOf(0x3d, space)
    if (
      !/^[1-9][0-9]{0,8}$/.test(digits) ||
      end > bytes.length ||
      equals < 0 ||
      equals >= end ||
      bytes[end - 1] !== 0x0a
    )
      throw invalid('a PAX header is malformed')
    const key = bytes.toString('utf8', space + 1, Math.min(equals, space + 1 + MAX_KEY))
    const value = bytes.subarray(equals + 1, end - 1)
    if (key === 'path' || key === 'linkpath') withinPath(value)
    // A copy: a part would keep the whole header in memory.
    if (used(key)) yield [key, new Uint8Array(value)]
    at = end
  }
}
