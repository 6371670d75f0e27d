/** Writes the archives of the benchmark's image: ustar, with PAX records for extended attributes. */

const BLOCK = 512

export interface TarEntry {
  /** At most 100 bytes, without a leading slash. */
  path: string
  type: 'file' | 'directory' | 'symlink' | 'hardlink'
  mode: number
  uid: number
  gid: number
  content?: Buffer
  /** Of links. */
  target?: string
  xattrs?: Record<string, string>
}

/** All entries get this time, seconds since 1970, so that the archive depends on nothing but its entries. */
const MTIME = 1_700_000_000
const FLAGS = { file: '0', hardlink: '1', symlink: '2', directory: '5' } as const

function header(flag: string, entry: TarEntry, size: number): Buffer {
  if (Buffer.byteLength(entry.path) > 100) throw new Error(`${entry.path} is too long for a ustar header`)
  const block = Buffer.alloc(BLOCK)
  const octal = (value: number, at: number, length: number) =>
    block.write(`${value.toString(8).padStart(length - 1, '0')}\0`, at)
  block.write(entry.path, 0)
  octal(entry.mode, 100, 8)
  octal(entry.uid, 108, 8)
  octal(entry.gid, 116, 8)
  octal(size, 124, 12)
  octal(MTIME, 136, 12)
  block.write('        ', 148)
  block.write(flag, 156)
  block.write(entry.target ?? '', 157)
  block.write('ustar\x0000', 257)
  octal(
    block.reduce((sum, byte) => sum + byte, 0),
    148,
    7,
  )
  return block
}

const padded = (content: Buffer): Buffer[] => [content, Buffer.alloc((BLOCK - (content.length % BLOCK)) % BLOCK)]

/** One record: its length in decimal counts itself. */
function record(keyword: string, value: string): string {
  const rest = ` ${keyword}=${value}\n`
  const length = Buffer.byteLength(rest)
  let digits = 1
  while (String(length + digits).length > digits) digits += 1
  return `${length + digits}${rest}`
}

export function* tar(entries: Iterable<TarEntry>): Generator<Buffer> {
  for (const entry of entries) {
    const records = Object.entries(entry.xattrs ?? {}).map(([name, value]) => record(`SCHILY.xattr.${name}`, value))
    if (records.length > 0) {
      const content = Buffer.from(records.join(''))
      yield header('x', { ...entry, path: 'pax', target: '' }, content.length)
      yield* padded(content)
    }
    const content = entry.content ?? Buffer.alloc(0)
    yield header(FLAGS[entry.type], entry, content.length)
    yield* padded(content)
  }
  yield Buffer.alloc(2 * BLOCK)
}
