import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { isError } from '@icebox/model'
import fc from 'fast-check'
import { ContentFile } from './contents.ts'
import { uuidOf } from './digest.ts'
import { readDirectory } from './directory.ts'
import { type Entry, EPOCH, toBytes } from './entry.ts'
import { readAttributes, readErofs } from './erofs/read.ts'
import { EROFS_RESERVED_BLOCKS, writeErofs } from './erofs/write.ts'
import { ext4ReservedBlocks, writeExt4 } from './ext4/write.ts'
import { SpaceBudget } from './space-budget.ts'
import { type Directory, Tree } from './tree.ts'
import { treeDigest } from './tree-digest.ts'

const MIB = 1_048_576
const UUID = uuidOf('a test')
const directory = mkdtempSync(join(tmpdir(), 'icebox-fs-'))
const mountPoint = join(directory, 'mnt')
mkdirSync(mountPoint)
after(() => rmSync(directory, { recursive: true, force: true }))

const sh = (program: string, ...args: string[]): string =>
  execFileSync(program, args, { encoding: 'utf8', stdio: 'pipe' })

const entry = (path: string, change: Partial<Entry> = {}): Entry => ({
  kind: 'file',
  path,
  size: 0,
  target: '',
  mode: 0o644,
  uid: 0,
  gid: 0,
  mtime: EPOCH,
  major: 0,
  minor: 0,
  xattrs: [],
  ...change,
})

/** Entries with the seed of their content. */
type Source = Entry & { seed?: number }

function fill(tree: Tree, source: Source[]): void {
  for (const one of source) {
    tree.add(one)
    if (one.kind !== 'file') continue
    for (let at = 0; at < one.size; at += 10_000)
      tree.write(Buffer.alloc(Math.min(10_000, one.size - at), (one.seed ?? 0) + at))
    tree.end()
  }
}

interface Made {
  file: string
  digest: string
  size: number
}

function make(format: 'erofs' | 'ext4', layers: Source[][], sizeBytes?: number): Made {
  const file = join(directory, format)
  rmSync(file, { force: true })
  const fd = openSync(file, 'wx')
  try {
    const reserved = format === 'ext4' ? ext4ReservedBlocks(sizeBytes) : EROFS_RESERVED_BLOCKS
    const contents = new ContentFile(fd, reserved, new SpaceBudget(directory))
    const tree = new Tree(contents, true)
    for (const layer of layers) {
      tree.beginLayer(true)
      fill(tree, layer)
    }
    const size =
      format === 'ext4' ? writeExt4(tree.root, contents, UUID, sizeBytes) : writeErofs(tree.root, contents, UUID)
    contents.flush()
    if (format === 'ext4') ftruncateSync(fd, size)
    return { file, size, digest: treeDigest(tree.root) }
  } finally {
    closeSync(fd)
  }
}

/** The digest of what a reader gives. */
function digestOf(read: (tree: Tree) => void, change: (root: Directory) => void = () => {}): string {
  const scratch = openSync(join(directory, 'read'), 'w')
  try {
    const tree = new Tree(new ContentFile(scratch, 0, new SpaceBudget(directory)), true)
    tree.beginLayer(false)
    read(tree)
    change(tree.root)
    return treeDigest(tree.root)
  } finally {
    closeSync(scratch)
  }
}

/** As the kernel sees it. */
function mountedDigest(type: 'erofs' | 'ext4', file: string): string {
  sh('mount', '-t', type, '-o', 'loop,ro', file, mountPoint)
  try {
    // e2fsck's directory is no part of the image.
    return digestOf(
      (tree) => readDirectory(mountPoint, '', tree),
      (root) => root.children.delete('lost+found'),
    )
  } finally {
    sh('umount', mountPoint)
  }
}

function checkExt4(layers: Source[][], sizeBytes?: number): Made {
  const made = make('ext4', layers, sizeBytes)
  sh('e2fsck', '-fn', made.file)
  return made
}

const xattr = fc.record({
  name: fc.constantFrom('user.a', 'user.longer', 'trusted.t', 'security.capability', 'user.a.b', 'security.s'),
  value: fc.uint8Array({ maxLength: 300 }),
})
/** What the kernel accepts as a file's capabilities. */
const CAPABILITY = Buffer.from('0100000200202000000000000000000000000000', 'hex')
const xattrs = fc
  .uniqueArray(xattr, { maxLength: 4, selector: ({ name }) => name })
  .map((list) => list.map(({ name, value }) => ({ name, value: name === 'security.capability' ? CAPABILITY : value })))
const time = fc.record({
  seconds: fc.integer({ min: -(2 ** 31), max: 2 ** 33 }),
  nanoseconds: fc.integer({ min: 0, max: 999_999_999 }),
})
const id = fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 4_294_967_294 }))
const name = fc.oneof(
  fc.stringMatching(/^[a-z]{1,12}$/),
  fc.constantFrom('-', '!', '\xff\xfe', 'n'.repeat(255), 'a b', 'ü'.repeat(40)),
)
const mode = fc.integer({ min: 0, max: 0o7777 })
const device = fc.record({ major: fc.integer({ min: 0, max: 4095 }), minor: fc.integer({ min: 0, max: 1_048_575 }) })
const size = fc.oneof(fc.constantFrom(0, 1, 4095, 4096, 4097, 8192), fc.integer({ min: 0, max: 300_000 }))

const source: fc.Arbitrary<Source> = fc
  .record({
    kind: fc.constantFrom('file', 'directory', 'symlink', 'character', 'block', 'fifo'),
    names: fc.array(name, { minLength: 1, maxLength: 3 }),
    attributes: fc.record({ mode, uid: id, gid: id, mtime: time, xattrs }),
    device,
    size,
    target: fc.integer({ min: 1, max: 4095 }),
    seed: fc.nat(255),
  })
  .map(({ kind, names, attributes, device, size, target, seed }) => {
    // user. attributes are for files and directories only, and only directories take some bits without meaning.
    const plain = kind === 'file' || kind === 'directory'
    const own = attributes.xattrs.filter(({ name }) => plain || name.startsWith('trusted.'))
    return entry(names.join('/'), {
      ...attributes,
      kind,
      mode: kind === 'symlink' ? 0o777 : attributes.mode,
      xattrs: own.filter(({ name }) => kind === 'file' || name !== 'security.capability'),
      size: kind === 'file' ? size : 0,
      target: kind === 'symlink' ? 't'.repeat(target) : '',
      ...(kind === 'character' || kind === 'block' ? device : {}),
      ...{ seed },
    })
  })

/** Leaves out what lies below something that is no directory, and names what is left of them a second time. */
function sound(list: Source[]): Source[] {
  const kinds = new Map<string, string>()
  const kept = list.filter((one) => {
    const parts = one.path.split('/')
    const above = parts.slice(1).map((_, i) => parts.slice(0, i + 1).join('/'))
    if (kinds.has(one.path) || above.some((path) => (kinds.get(path) ?? 'directory') !== 'directory')) return false
    for (const path of above) kinds.set(path, 'directory')
    kinds.set(one.path, one.kind)
    return true
  })
  const links = kept
    .filter(({ kind }) => kind !== 'directory')
    .slice(0, 3)
    .map((one, i) => entry(`link-${i}`, { kind: 'hardlink', target: one.path }))
  return [...kept, ...links]
}

const trees = fc.array(source, { maxLength: 25 }).map(sound)
const RUNS = { numRuns: 25 }

test('any tree is the same again from its EROFS file, and for the kernel', () => {
  fc.assert(
    fc.property(trees, (tree) => {
      const made = make('erofs', [tree])
      sh('fsck.erofs', made.file)
      assert.equal(
        digestOf((into) => readErofs(made.file, into)),
        made.digest,
      )
      const bare = make('erofs', [tree.map((one) => ({ ...one, xattrs: [] }))])
      assert.equal(mountedDigest('erofs', bare.file), bare.digest)
    }),
    RUNS,
  )
})

test('any tree is the same again from its ext4 file for the kernel, and e2fsck finds nothing', () => {
  fc.assert(
    fc.property(trees, (tree) => {
      const made = checkExt4([tree], 64 * MIB)
      assert.equal(made.size, 64 * MIB)
      assert.equal(mountedDigest('ext4', made.file), made.digest)
    }),
    RUNS,
  )
})

test('the same tree gives the same bytes', () => {
  const tree = [entry('a', { size: 5000, seed: 1 } as Source), entry('b/c', { kind: 'symlink', target: 'x' })]
  for (const format of ['erofs', 'ext4'] as const) {
    const first = readFileSync(make(format, [tree], 32 * MIB).file)
    assert.ok(first.equals(readFileSync(make(format, [tree], 32 * MIB).file)), format)
  }
})

const many = (count: number, change: Partial<Entry> = {}): Source[] =>
  Array.from({ length: count }, (_, i) => entry(`many/${'long-name-'.repeat(8)}${i}`, change))

test('large directories, many files and large files fit', () => {
  const layers = [
    [...many(3000, { size: 10 }), ...Array.from({ length: 300 }, (_, i) => entry(`sub/${i}`, { kind: 'directory' }))],
  ]
  const ext4 = checkExt4(layers)
  assert.equal(mountedDigest('ext4', ext4.file), ext4.digest)
  const erofs = make('erofs', layers)
  sh('fsck.erofs', erofs.file)
  assert.equal(mountedDigest('erofs', erofs.file), erofs.digest)
})

test('a file of many extents has an extent tree', () => {
  const file = join(directory, 'huge')
  const fd = openSync(file, 'w')
  try {
    const contents = new ContentFile(fd, ext4ReservedBlocks(undefined), new SpaceBudget(directory))
    const tree = new Tree(contents, false)
    tree.beginLayer(false)
    // Never written: its blocks are holes.
    tree.add(entry('huge', { size: 5000 * MIB }))
    const size = writeExt4(tree.root, contents, UUID, undefined)
    contents.flush()
    ftruncateSync(fd, size)
    sh('e2fsck', '-fn', file)
    assert.match(sh('debugfs', '-R', 'stat /huge', file), /ETB0/)
  } finally {
    closeSync(fd)
    rmSync(file)
  }
})

test('sizes at the edges of block groups', () => {
  for (const bytes of [
    16 * MIB,
    128 * MIB - 4096,
    128 * MIB,
    128 * MIB + 4096,
    1024 * MIB,
    10_240 * MIB,
    20 * 1024 * MIB,
  ])
    assert.equal(checkExt4([[entry('x', { size: 5000 })]], bytes).size, bytes)
})

test('blocks of what later layers removed are free or used again', () => {
  const lower = many(50, { size: 100_000 })
  const upper = [entry('.wh.many'), entry('small', { size: 3 }), entry('large', { size: 200_000 })]
  for (const layers of [
    [lower, upper],
    [lower, [entry('.wh.many')]],
  ]) {
    const ext4 = checkExt4(layers, 64 * MIB)
    assert.equal(mountedDigest('ext4', ext4.file), ext4.digest)
    const erofs = make('erofs', layers)
    assert.equal(mountedDigest('erofs', erofs.file), erofs.digest)
  }
  assert.ok(make('erofs', [lower, upper]).size < 6 * MIB)
})

test('a tree that does not fit into the size is refused', () => {
  const tooSmall = (error: unknown) => isError(error, 'InvalidArgument') && /too small/.test(error.message)
  assert.throws(() => make('ext4', [[entry('x', { size: 20 * MIB })]], 16 * MIB), tooSmall)
  assert.throws(() => make('ext4', [[entry('x', { size: 11 * MIB + 900_000 })]], 16 * MIB), tooSmall)
  assert.throws(() => make('ext4', [many(40_000)], 16 * MIB), tooSmall)
})

test('what ext4 cannot hold is refused', () => {
  const invalid = (error: unknown) => isError(error, 'ImageInvalid')
  const value = Buffer.alloc(4000)
  assert.throws(
    () =>
      make(
        'ext4',
        [
          [
            entry('x', {
              xattrs: [
                { name: 'user.a', value },
                { name: 'user.b', value },
              ],
            }),
          ],
        ],
        16 * MIB,
      ),
    invalid,
  )
  assert.throws(() => make('ext4', [[entry('x', { xattrs: [{ name: 'other.a', value }] })]], 16 * MIB), invalid)
  const links = Array.from({ length: 65_001 }, (_, i) => entry(`l/${i}`, { kind: 'hardlink', target: 'x' }))
  assert.throws(() => make('ext4', [[entry('x'), ...links]], 64 * MIB), invalid)
})

test('access control lists arrive', () => {
  // user::rw-, user:5:r--, group::r--, mask::r--, other::r--
  const acl = Buffer.from(
    '02000000' + '01000600ffffffff' + '0200040005000000' + '04000400ffffffff' + '10000400ffffffff' + '20000400ffffffff',
    'hex',
  )
  const made = checkExt4([[entry('x', { xattrs: [{ name: 'system.posix_acl_access', value: acl }] })]], 16 * MIB)
  assert.equal(mountedDigest('ext4', made.file), made.digest)
})

test('xattrs are kept behind the EROFS file, also of names that are no text', () => {
  const value = Buffer.from([0, 255, 1])
  const named = (path: string) => entry(path, { xattrs: [{ name: 'user.x', value }] })
  const { file } = make('erofs', [
    [
      entry('', { kind: 'directory', mode: 0o755, xattrs: [{ name: 'trusted.r', value }] }),
      named('a/\xff'),
      named('b'),
    ],
  ])
  assert.deepEqual(
    readAttributes(file).map(({ path, name }) => [path.toString('latin1'), name]),
    [
      ['/', 'trusted.r'],
      ['/a/\xff', 'user.x'],
      ['/b', 'user.x'],
    ],
  )
  assert.deepEqual(readAttributes(make('erofs', [[entry('a')]]).file), [])
})

test('damaged EROFS files are refused or read, never anything else', () => {
  const { file } = make('erofs', [sound(many(30, { size: 5, xattrs: [{ name: 'user.x', value: toBytes('1') }] }))])
  const whole = readFileSync(file)
  const damagedFile = join(directory, 'damaged')
  const attempt = () => {
    try {
      digestOf((tree) => readErofs(damagedFile, tree))
    } catch (error) {
      assert.ok(isError(error, 'ImageInvalid', 'NoSpace'), String(error))
    }
  }
  fc.assert(
    fc.property(fc.integer({ min: 1024, max: whole.length - 1 }), fc.integer({ min: 1, max: 255 }), (at, change) => {
      const damaged = Buffer.from(whole)
      damaged.writeUInt8(damaged.readUInt8(at) ^ change, at)
      writeFileSync(damagedFile, damaged)
      attempt()
    }),
    { numRuns: 300 },
  )
  for (const length of [0, 100, 1500, 4096, whole.length - 5000, whole.length - 1]) {
    writeFileSync(damagedFile, whole)
    truncateSync(damagedFile, length)
    assert.throws(
      () => digestOf((tree) => readErofs(damagedFile, tree)),
      (error) => isError(error, 'ImageInvalid'),
    )
  }
})
