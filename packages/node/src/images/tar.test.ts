import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { isError } from '@icebox/model'
import fc from 'fast-check'
import type { Entry } from './entry.ts'
import { TarReader } from './tar.ts'

const directory = mkdtempSync(join(tmpdir(), 'icebox-tar-'))
after(() => rmSync(directory, { recursive: true, force: true }))

const LONG = `${'d'.repeat(120)}/${'f'.repeat(150)}`

/** A tree with what archives find hard, as the tar program of this machine writes it. */
const archive = (format: string): Buffer => {
  const script = `
    set -e; rm -rf tree; mkdir -p tree/${'d'.repeat(120)}; cd tree
    printf 0123456789 > plain; head -c 70000 /dev/zero | tr '\\0' x > large; : > empty
    ln plain again; ln -s plain short; ln -s ${'t'.repeat(130)} long; mkfifo pipe
    printf y > ${LONG}; printf z > "$(printf 'bytes\\377')"
    mkdir sticky; chmod 1777 sticky; printf s > suid; chown 70000:4000000000 suid; chmod 6755 suid
    touch -d '1965-03-04 05:06:07.25 UTC' old; touch -d '2100-01-01 UTC' future
    tar --format=${format} --sort=name -cf - .`
  return execFileSync('sh', ['-c', script], { cwd: directory, maxBuffer: 1e8 })
}

interface Seen extends Entry {
  content: string
}

function read(chunks: Iterable<Buffer>, marked = true): Seen[] {
  const seen: Seen[] = []
  let content: string[] = []
  let ended = true
  const reader = new TarReader({
    add(entry) {
      assert.ok(ended, 'an entry began before the content of the last had ended')
      content = []
      ended = entry.kind !== 'file'
      seen.push({ ...entry, content: '' })
    },
    write: (chunk) => void content.push(Buffer.from(chunk).toString('latin1')),
    end() {
      ended = true
      const last = seen.at(-1)
      if (last !== undefined) last.content = content.join('')
    },
  })
  for (const chunk of chunks) reader.write(chunk)
  reader.finish(marked)
  return seen
}

for (const format of ['gnu', 'pax'])
  test(`reads what tar writes as ${format}`, () => {
    const entries = new Map(read([archive(format)]).map((entry) => [entry.path.replace(/^\.\//, ''), entry]))
    const get = (path: string) => entries.get(path) ?? assert.fail(`${path} is missing`)
    assert.equal(get('plain').kind === 'file' ? get('plain').content : get('again').content, '0123456789')
    assert.deepEqual([get('again').kind, get('plain').kind].sort(), ['file', 'hardlink'])
    assert.equal(get('large').content, 'x'.repeat(70_000))
    assert.equal(get('empty').size, 0)
    assert.equal(get('short').target, 'plain')
    assert.equal(get('long').target, 't'.repeat(130))
    assert.equal(get('pipe').kind, 'fifo')
    assert.equal(get(LONG).content, 'y')
    assert.equal(get('bytes\xff').content, 'z')
    assert.equal(get('sticky/').kind, 'directory')
    assert.equal(get('sticky/').mode, 0o1777)
    assert.deepEqual([get('suid').mode, get('suid').uid, get('suid').gid], [0o6755, 70_000, 4_000_000_000])
    assert.equal(get('future').mtime.seconds, 4_102_444_800)
    const fraction = format === 'pax' ? 250_000_000 : 0
    assert.deepEqual(get('old').mtime, { seconds: -152_391_233, nanoseconds: fraction })
  })

test('how an archive is cut into chunks does not matter', () => {
  const whole = archive('pax')
  const expected = read([whole])
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: whole.length }), { maxLength: 40 }), (cuts) => {
      const edges = [0, ...cuts.sort((a, b) => a - b), whole.length]
      assert.deepEqual(read(edges.slice(1).map((edge, i) => whole.subarray(edges[i], edge))), expected)
    }),
    { numRuns: 50 },
  )
})

test('an archive that ends early is refused wherever it ends', () => {
  const whole = archive('pax')
  // The end is two blocks of zeros and what fills the record: tar needs only the first.
  const contentEnd = whole.length - (whole.reverse().findIndex((byte) => byte !== 0) ?? 0)
  whole.reverse()
  fc.assert(
    fc.property(fc.integer({ min: 0, max: contentEnd }), (length) => {
      assert.throws(
        () => read([whole.subarray(0, length)]),
        (error) => isError(error, 'ImageInvalid') && /truncated/.test(error.message),
      )
    }),
    { numRuns: 200 },
  )
})

test('with a digest that vouches for it, an archive may lack what comes after its last content', () => {
  const whole = Buffer.concat([header('0', 'a', 3), Buffer.from('abc'), Buffer.alloc(509), header('5', 'b'), END])
  for (const length of [515, 700, 1024, 1536])
    assert.equal(read([whole.subarray(0, length)], false).length, length < 1536 ? 1 : 2, `${length}`)
  for (const length of [300, 512, 514, 1030, 1600])
    assert.throws(() => read([whole.subarray(0, length)], false), /truncated/)
})

test('damaged archives are refused or read, never anything else', () => {
  const whole = archive('pax')
  fc.assert(
    fc.property(fc.integer({ min: 0, max: whole.length - 1 }), fc.integer({ min: 1, max: 255 }), (at, change) => {
      const damaged = Buffer.from(whole)
      damaged.writeUInt8(damaged.readUInt8(at) ^ change, at)
      try {
        read([damaged])
      } catch (error) {
        assert.ok(isError(error, 'ImageInvalid'), String(error))
      }
    }),
    { numRuns: 500 },
  )
})

test('extended attributes keep every byte', () => {
  const value = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte))
  const [entry] = read([Buffer.concat([pax({ 'SCHILY.xattr.security.capability': value }), header('0', 'file'), END])])
  assert.deepEqual(entry?.xattrs, [{ name: 'security.capability', value: new Uint8Array(value) }])
})

test('sparse, multi-volume and unknown entries are refused in words', () => {
  for (const type of ['S', 'M', 'V', 'Z'])
    assert.throws(
      () => read([Buffer.concat([header(type, 'x'), END])]),
      (error) => isError(error, 'ImageInvalid'),
    )
  const sparse = Buffer.concat([pax({ 'GNU.sparse.major': Buffer.from('1') }), header('0', 'x'), END])
  assert.throws(() => read([sparse]), /sparse/)
})

test('headers that ask for too much memory are refused', () => {
  assert.throws(
    () => read([header('x', 'x', 2_000_000)]),
    (error) => isError(error, 'ImageInvalid'),
  )
  for (const bad of ['6 x=\n', '99999 path=a\n', '0 \n', 'x path=a\n', '12 mtime=1e9\n', '13 size=-100\n'])
    assert.throws(() => read([Buffer.concat([padded('x', Buffer.from(bad)), header('0', 'f'), END])]), bad)
})

const END = Buffer.alloc(1024)

function header(type: string, name: string, size = 0): Buffer {
  const bytes = Buffer.alloc(512)
  bytes.write(name, 0, 'latin1')
  for (const [at, value] of [
    [100, '0000644'],
    [108, '0000000'],
    [116, '0000000'],
    [124, size.toString(8).padStart(11, '0')],
    [136, '00000000000'],
  ] as const)
    bytes.write(value, at)
  bytes.write(type, 156)
  bytes.write('ustar\x0000', 257, 'latin1')
  const sum = bytes.reduce((total, byte) => total + byte, 8 * 0x20)
  bytes.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  return bytes
}

function padded(type: string, content: Buffer): Buffer {
  return Buffer.concat([header(type, 'x', content.length), content, Buffer.alloc((512 - (content.length % 512)) % 512)])
}

function pax(records: Record<string, Buffer>): Buffer {
  const parts = Object.entries(records).map(([key, value]) => {
    const rest = Buffer.concat([Buffer.from(` ${key}=`), value, Buffer.from('\n')])
    let length = rest.length + 1
    while (`${length}`.length + rest.length !== length) length = `${length}`.length + rest.length
    return Buffer.concat([Buffer.from(`${length}`), rest])
  })
  return padded('x', Buffer.concat(parts))
}
