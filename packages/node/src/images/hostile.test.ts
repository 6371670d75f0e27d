import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { type ErrorCode, isError } from '@icebox/model'
import {
  blobFile,
  filesBelow,
  freshDirectories,
  type LayoutOptions,
  MIB,
  mounted,
  quiet,
  readManifest,
  sh,
  sha256,
  soon,
  type TarEntry,
  tarOf,
  temporaryDirectory,
  writeLayout,
} from './fixture.ts'
import { pullToExt4 } from './pull-ext4.ts'
import { openImageStore } from './store.ts'

const directory = temporaryDirectory()
const cacheDirectory = join(directory, 'cache')
const fresh = freshDirectories(directory)

/** Refused by the store and by the verb, in words that match, and nothing of it stays. */
async function refused(reference: string, code: ErrorCode, words: RegExp): Promise<void> {
  const place = fresh('refused')
  const expected = (error: unknown) => {
    assert.ok(error instanceof Error && isError(error, code), `${error}`)
    assert.match(error.message, words)
    return true
  }
  const store = openImageStore({ directory: join(place, 'store'), cacheDirectory })
  await assert.rejects(store.pull(reference, quiet, soon()), expected)
  const options = { cacheDirectory, workDirectory: join(place, 'work') }
  await assert.rejects(pullToExt4(reference, join(place, 'out.ext4'), options, quiet, soon()), expected)
  assert.deepEqual(filesBelow(place), [])
  rmSync(place, { recursive: true })
}

async function layoutOf(layers: TarEntry[][], options: LayoutOptions = {}): Promise<string> {
  const path = fresh('layout')
  writeLayout(path, await Promise.all(layers.map(tarOf)), options)
  return path
}

const link = (name: string, linkname: string): TarEntry => ({ name, type: 'symlink', linkname })
const hard = (name: string, linkname: string): TarEntry => ({ name, type: 'link', linkname })
const folder = (name: string): TarEntry => ({ name, type: 'directory' })

test('no archive writes outside, whatever the way', async () => {
  const outside = fresh('outside')
  const target = join(outside, 'target')
  mkdirSync(target)
  const up = '../'.repeat(20)
  const ways: TarEntry[][][] = [
    [[{ name: `${up}${outside}/pwned` }]],
    [[folder('a'), { name: `a/${up}${outside}/pwned` }]],
    [[link('escape', target), { name: 'escape/pwned' }]],
    [[link('escape', target)], [{ name: 'escape/pwned' }]],
    [[link('escape', `${up}${target}`)], [{ name: 'escape/pwned' }]],
    [[folder('d'), link('d/escape', `../${up}${target}`)], [{ name: 'd/escape/pwned' }]],
    [[link('one', 'two'), link('two', target), { name: 'one/pwned' }]],
    [[hard('pwned', '/etc/passwd')]],
    [[hard('pwned', `${up}etc/passwd`)]],
    [[link('escape', target), hard('pwned', 'escape/x')]],
    [[link('escape', target)], [{ name: 'escape/.wh.x' }]],
    [[link('escape', target)], [{ name: 'escape/.wh..wh..opq' }]],
    [[{ name: '.wh...' }]],
    [[{ name: `.wh..${up}x` }]],
  ]
  for (const layers of ways) await refused(`oci:${await layoutOf(layers)}:latest`, 'ImageInvalid', /^the image has /)
  // The same in a tar of one layer, where whiteouts are names like others.
  for (const [only, ...more] of ways.slice(0, 10)) {
    if (only === undefined || more.length > 0) continue
    const file = join(fresh('tar'), 'hostile.tar')
    writeFileSync(file, await tarOf(only))
    await refused(`tar:${file}`, 'ImageInvalid', /^the image has /)
  }
  assert.deepEqual(filesBelow(outside), [])
})

test('a directory is copied without following its links', async () => {
  const root = fresh('root')
  symlinkSync('/etc', join(root, 'etc'))
  symlinkSync('../../../../etc/passwd', join(root, 'passwd'))
  const out = join(fresh('out'), 'dir.ext4')
  await pullToExt4(`dir:${root}`, out, { cacheDirectory, workDirectory: fresh('work') }, quiet, soon())
  mounted('ext4', out, (path) => assert.equal(sh('readlink', join(path, 'etc')).trim(), '/etc'))
})

test('a blob that was changed, cut or replaced is refused', async () => {
  const content = Buffer.alloc(200_000, 'some content')
  const damage: [string, (path: string, layer: string, config: string) => void, RegExp][] = [
    ['a flipped bit', (path, layer) => flip(blobFile(path, layer), 300), /should have/],
    ['a flipped bit in the config', (path, _, config) => flip(blobFile(path, config), 5), /should have/],
    ['a cut layer', (path, layer) => truncateSync(blobFile(path, layer), 100), /has 100 bytes/],
    ['a missing layer', (path, layer) => rmSync(blobFile(path, layer)), /not there/],
    ['another layer', (path, layer) => writeFileSync(blobFile(path, layer), gzipSync(content)), /bytes|should have/],
  ]
  for (const [, change, words] of damage) {
    const path = fresh('layout')
    const digest = writeLayout(path, [await tarOf([{ name: 'x', content }])])
    const manifest = readManifest(path, digest)
    change(path, manifest.layers[0]?.digest ?? '', manifest.config.digest)
    await refused(`oci:${path}:latest`, 'ImageInvalid', words)
  }
  const swapped = await layoutOf([[{ name: 'x' }]], { diffIds: [sha256(Buffer.from('other'))] })
  await refused(`oci:${swapped}:latest`, 'ImageInvalid', /decompressed, has the digest/)
})

function flip(path: string, at: number): void {
  const bytes = readFileSync(path)
  bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at)
  writeFileSync(path, bytes)
}

test('manifests that cannot be unpacked are refused in words', async () => {
  const change = (manifest: (manifest: Record<string, unknown>) => void) => layoutOf([[{ name: 'x' }]], { manifest })
  const mediaType = (type: string) => (manifest: Record<string, unknown>) => {
    manifest.layers = (manifest.layers as object[]).map((layer) => ({ ...layer, mediaType: type }))
  }
  const foreign = 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip'
  await refused(`oci:${await change(mediaType(foreign))}`, 'ImageInvalid', /foreign layer/)
  const chart = 'application/vnd.cncf.helm.chart.content.v1.tar+gzip'
  await refused(`oci:${await change(mediaType(chart))}`, 'ImageInvalid', /not a layer/)
  await refused(
    `oci:${await change((manifest) => {
      delete manifest.layers
    })}`,
    'ImageInvalid',
    /neither/,
  )
  const traversal = {
    layers: [{ mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: 'sha256:../../../etc/passwd', size: 1 }],
  }
  await refused(`oci:${await change((manifest) => Object.assign(manifest, traversal))}`, 'ImageInvalid', /digest/)
  await refused(
    `oci:${await layoutOf([[{ name: 'x' }]], { architecture: 'arm64' })}`,
    'PlatformUnsupported',
    /linux\/arm64/,
  )
  await refused(`oci:${await layoutOf([[{ name: 'x' }]])}:other`, 'NotFound', /it has latest/)
  await refused(`oci:${fresh('empty')}`, 'NotFound', /no OCI image layout/)
})

test('archives that are cut off or are none are refused', async () => {
  const place = fresh('archives')
  const whole = await tarOf([
    { name: 'a', content: Buffer.alloc(100_000, 1) },
    { name: 'b', content: 'b' },
  ])
  const cases: [string, Buffer, RegExp][] = [
    ['cut.tar', whole.subarray(0, 60_000), /truncated/],
    ['between.tar', whole.subarray(0, whole.length - 1024), /truncated/],
    ['empty.tar', Buffer.alloc(0), /truncated/],
    ['text.tar', Buffer.alloc(2048, 'no archive'), /not octal|checksum/],
    ['cut.tar.gz', gzipSync(whole).subarray(0, 50), /decompressed/],
    ['cut.tar.zst', zstdCompressSync(whole).subarray(0, 30), /decompressed|truncated/],
    ['damaged.tar.xz', Buffer.concat([Buffer.from('fd377a585a00', 'hex'), Buffer.alloc(100)]), /xz/],
    ['x.tar.bz2', Buffer.from('BZh91AY&SY'), /bzip2/],
  ]
  for (const [name, bytes, words] of cases) {
    writeFileSync(join(place, name), bytes)
    await refused(`tar:${join(place, name)}`, 'ImageInvalid', words)
  }
  await refused(`tar:${join(place, 'missing.tar')}`, 'NotFound', /missing\.tar/)
  await refused(`dir:${join(place, 'missing')}`, 'NotFound', /missing/)
  await refused(`dir:${join(place, 'cut.tar')}`, 'InvalidArgument', /not a directory/)
  writeFileSync(join(place, 'save.tar'), whole)
  await refused(`docker-archive:${join(place, 'save.tar')}`, 'ImageInvalid', /no manifest\.json/)
  await refused(`docker-archive:${join(place, 'cut.tar')}`, 'ImageInvalid', /truncated/)
})

test('what does not fit is refused before or while it is unpacked, and leaves nothing', async () => {
  const layout = fresh('bomb')
  // 300 MiB of zeros in some hundred kilobytes.
  const size = 300 * MIB
  const header = (await tarOf([{ name: 'zeros', content: '' }])).subarray(0, 512)
  header.write(`${size.toString(8).padStart(11, '0')} `, 124)
  header.write('        ', 148)
  const sum = header.reduce((total, byte) => total + byte, 0)
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  const bomb = Buffer.concat([header, Buffer.alloc(size + 1024)])
  writeLayout(layout, [bomb])
  const large = fresh('large')
  writeLayout(large, [await tarOf([{ name: 'large', content: noise(70 * MIB) }])])
  const place = fresh('small')
  sh('mount', '-t', 'tmpfs', '-o', 'size=64m', 'icebox-test', place)
  try {
    for (const [path, words] of [
      [layout, /unpacking the image needs/],
      [large, /^the image needs/],
    ] as const) {
      const store = openImageStore({ directory: join(place, 'store'), cacheDirectory })
      const noSpace = (error: unknown) =>
        error instanceof Error && isError(error, 'NoSpace') && words.test(error.message)
      await assert.rejects(store.pull(`oci:${path}`, quiet, soon()), noSpace)
      const options = { cacheDirectory, workDirectory: join(place, 'work') }
      await assert.rejects(pullToExt4(`oci:${path}`, join(place, 'out.ext4'), options, quiet, soon()), noSpace)
      assert.deepEqual(filesBelow(place), [])
    }
  } finally {
    sh('umount', place)
  }
})

/** Bytes that no compression makes smaller. */
function noise(length: number): Buffer {
  const bytes = Buffer.alloc(length)
  let state = 1
  for (let at = 0; at < length; at += 4) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    bytes.writeUInt32LE((state ^ (state >>> 13)) >>> 0, at)
  }
  return bytes
}
