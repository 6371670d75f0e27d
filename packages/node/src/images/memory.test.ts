import assert from 'node:assert/strict'
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { isError } from '@icebox/model'
import { freshDirectories, MIB, quiet, soon, temporaryDirectory } from './fixture.ts'
import { Unpacker } from './unpack.ts'

const directory = temporaryDirectory()
const fresh = freshDirectories(directory)

/** A header of tar with the checksum it must have. */
function header(type: string, name: string, size = 0): Buffer {
  const block = Buffer.alloc(512)
  block.write(name, 0)
  block.write('0000644\0', 100)
  block.write(`${size.toString(8).padStart(11, '0')}\0`, 124)
  block.write('        ', 148)
  block.write(type, 156)
  block.write('ustar\x0000', 257)
  const sum = block.reduce((total, byte) => total + byte, 0)
  block.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  return block
}

const padded = (bytes: Buffer): Buffer => Buffer.concat([bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)])

function extension(type: string, records: [string, string][]): Buffer {
  const lines = records.map(([key, value]) => {
    const rest = ` ${key}=${value}\n`
    const digits = String(rest.length).length
    const length = rest.length + String(rest.length + digits).length
    return `${length}${rest}`
  })
  const bytes = Buffer.from(lines.join(''), 'latin1')
  return Buffer.concat([header(type, 'pax', bytes.length), padded(bytes)])
}

/** What an archive is made of, repeated, without ever being whole in memory. */
function archive(name: string, parts: (i: number) => Buffer, count: number): string {
  const file = join(fresh('archive'), name)
  const chunks: Buffer[] = []
  for (let from = 0; from < count; from += 256) {
    const some = Array.from({ length: Math.min(256, count - from) }, (_, i) => parts(from + i))
    chunks.push(gzipSync(Buffer.concat(some), { level: 1 }))
  }
  chunks.push(gzipSync(Buffer.alloc(1024)))
  writeFileSync(file, Buffer.concat(chunks))
  return file
}

const full = 'v'.repeat(60_000)
const attributes = (count: number, value: string): [string, string][] =>
  Array.from({ length: count }, (_, i) => [`SCHILY.xattr.user.${i}`, value])
const hugeHeader = extension('x', attributes(16, full))

/** The most memory that each child of this process has had so far, while it lives. */
const childrenPeaks = (): number[] =>
  readdirSync('/proc/self/task')
    .flatMap((task) => readFileSync(`/proc/self/task/${task}/children`, 'utf8').trim().split(' '))
    .filter((pid) => pid !== '')
    .map((pid) => 1024 * Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]))

const HOSTILE: [string, (i: number) => Buffer, number][] = [
  ['attributes of a megabyte each', (i) => Buffer.concat([hugeHeader, header('0', `f${i}`)]), 1200],
  [
    'many small attributes',
    (() => {
      const some = extension('x', attributes(4000, ''))
      return (i) => Buffer.concat([some, header('0', `f${i}`)])
    })(),
    300,
  ],
  [
    'long targets',
    (i) => Buffer.concat([extension('x', [['linkpath', 't'.repeat(4095)]]), header('2', `l${i}`)]),
    150_000,
  ],
  [
    'deep paths',
    (i) => Buffer.concat([extension('x', [['path', `${i}/${'d/'.repeat(2000)}f`]]), header('0', 'f')]),
    400,
  ],
]

for (const [what, part, count] of HOSTILE)
  test(`an image with ${what} is refused within its memory`, async () => {
    const file = archive('hostile.tar.gz', part, count)
    const place = fresh('out')
    const output = join(place, 'image.erofs')
    const unpacker = new Unpacker({ product: { format: 'erofs' }, output, digest: true, memoryBytes: 64 * MIB })
    try {
      const length = statSync(file).size
      await assert.rejects(
        unpacker.apply({ do: 'archive', file, length }, quiet, soon()),
        (error) => error instanceof Error && isError(error, 'ImageInvalid') && /bytes of memory/.test(error.message),
      )
      const peak = Math.max(...childrenPeaks())
      assert.ok(peak < 400 * MIB, `a process that unpacks took ${Math.round(peak / MIB)} MiB`)
    } finally {
      await unpacker.close()
    }
  })

test('a process that dies of its heap fails its own work only, in words', async () => {
  const file = archive('hostile.tar.gz', HOSTILE[2]?.[1] ?? assert.fail(), 150_000)
  const dying = new Unpacker({
    ...{ product: { format: 'erofs' }, output: join(fresh('out'), 'image.erofs'), digest: true },
    // Larger than its heap, so that the heap is full first.
    ...{ memoryBytes: 4096 * MIB, heapBytes: 64 * MIB },
  })
  const other = new Unpacker({ product: { format: 'erofs' }, output: join(fresh('out'), 'other'), digest: true })
  const good = archive('good.tar.gz', (i) => header('0', `f${i}`), 3)
  try {
    await assert.rejects(
      dying.apply({ do: 'archive', file, length: statSync(file).size }, quiet, soon()),
      (error) => error instanceof Error && isError(error, 'ImageInvalid') && /more memory/.test(error.message),
    )
    await other.apply({ do: 'archive', file: good, length: statSync(good).size }, quiet, soon())
    assert.match((await other.finish(undefined, soon())).digest, /^sha256:/)
  } finally {
    await Promise.all([dying.close(), other.close()])
  }
})
