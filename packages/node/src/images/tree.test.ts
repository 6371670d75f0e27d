import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isError } from '@icebox/model'
import fc from 'fast-check'
import type { ContentStore, Run } from './contents.ts'
import { type Entry, EPOCH } from './entry.ts'
import { type Directory, Tree } from './tree.ts'

/** Contents that are only counted. */
class Counted implements ContentStore {
  readonly used = new Set<number>()
  #next = 0
  begin(): Run {
    this.used.add(this.#next)
    return { start: this.#next++, count: 1 }
  }
  write(): void {}
  end(): void {}
  free(run: Run): void {
    assert.ok(this.used.delete(run.start), 'freed twice')
  }
}

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
const directory = (path: string) => entry(path, { kind: 'directory' })
const link = (path: string, target: string) => entry(path, { kind: 'symlink', target })
const hard = (path: string, target: string) => entry(path, { kind: 'hardlink', target })

function build(...layers: Entry[][]): { paths: string[]; contents: Counted } {
  const contents = new Counted()
  const tree = new Tree(contents, false)
  for (const layer of layers) {
    tree.beginLayer(true)
    for (const one of layer) {
      tree.add(one)
      if (one.kind !== 'file') continue
      tree.write(Buffer.alloc(one.size))
      tree.end()
    }
  }
  return { paths: list(tree.root), contents }
}

function list(root: Directory, at = ''): string[] {
  return [...root.children]
    .flatMap(([name, node]) =>
      node.kind === 'directory' ? [`${at}/${name}/`, ...list(node, `${at}/${name}`)] : [`${at}/${name}`],
    )
    .sort()
}

const refused = (...layers: Entry[][]) =>
  assert.throws(
    () => build(...layers),
    (error) => isError(error, 'ImageInvalid'),
    JSON.stringify(layers),
  )

test('a later layer replaces, adds and removes', () => {
  const { paths, contents } = build(
    [directory('etc'), entry('etc/a', { size: 1 }), entry('etc/b', { size: 1 }), entry('opt/deep/x', { size: 1 })],
    [entry('etc/.wh.a'), entry('etc/b', { size: 1 }), entry('etc/c', { size: 1 }), entry('.wh.opt')],
  )
  assert.deepEqual(paths, ['/etc/', '/etc/b', '/etc/c'])
  assert.equal(contents.used.size, 2)
})

test('an opaque directory keeps what its own layer brings, before or after the mark', () => {
  const lower = [entry('d/old'), entry('d/sub/old')]
  for (const upper of [
    [entry('d/.wh..wh..opq'), entry('d/new'), entry('d/sub/new')],
    [entry('d/new'), entry('d/sub/new'), entry('d/.wh..wh..opq')],
  ])
    assert.deepEqual(build(lower, upper).paths, ['/d/', '/d/new', '/d/sub/', '/d/sub/new'])
})

test('a whiteout does not remove what its own layer brings', () => {
  assert.deepEqual(build([entry('a')], [entry('a'), entry('.wh.a')]).paths, ['/a'])
  assert.deepEqual(build([], [entry('.wh.never')]).paths, [])
  assert.deepEqual(build([entry('a')], [entry('.wh..wh.plnk')]).paths, ['/a'])
  assert.deepEqual(build([entry('d/x')], [entry('d'), entry('d/.wh.x'), entry('d/.wh..wh..opq')]).paths, ['/d'])
  assert.deepEqual(build([entry('a')], [entry('none/.wh.x'), entry('none/.wh..wh..opq')]).paths, ['/a'])
})

test('files become directories and the reverse', () => {
  assert.deepEqual(build([entry('x')], [directory('x'), entry('x/y')]).paths, ['/x/', '/x/y'])
  assert.deepEqual(build([entry('x/y', { size: 1 })], [entry('x')]).contents.used.size, 0)
  assert.deepEqual(build([link('x', 'y'), directory('y')], [directory('x')]).paths, ['/x/', '/y/'])
})

test('contents live as long as one of their names', () => {
  const lower = [entry('a', { size: 1 }), hard('b', 'a'), hard('c/d', './b')]
  assert.equal(build(lower, [entry('.wh.a'), entry('.wh.b')]).contents.used.size, 1)
  assert.equal(build(lower, [entry('.wh.a'), entry('.wh.b'), entry('.wh.c')]).contents.used.size, 0)
  assert.deepEqual(build(lower, [hard('e', 'c/d')]).paths, ['/a', '/b', '/c/', '/c/d', '/e'])
  // A link to itself, and one in place of the directory that it names.
  assert.deepEqual(build([entry('a', { size: 1 }), hard('a', 'a')]).contents.used.size, 1)
  refused([entry('d/x'), hard('d', 'd/x')])
})

test('links of lower layers are followed as the image itself would', () => {
  const lower = [directory('run'), link('var/run', '/run'), directory('usr/lib'), link('lib', 'usr/lib')]
  const { paths } = build(lower, [entry('var/run/pid'), entry('lib/x'), entry('lib/new/y')])
  assert.deepEqual(
    paths.filter((path) => !path.endsWith('/')),
    ['/lib', '/run/pid', '/usr/lib/new/y', '/usr/lib/x', '/var/run'],
  )
  assert.ok(build([link('bin', 'usr/bin'), directory('usr/bin'), entry('bin/sh')]).paths.includes('/usr/bin/sh'))
})

test('every way out of the image is refused', () => {
  refused([entry('../x')])
  refused([entry('a/../../x')])
  refused([entry('a/../x')])
  refused([entry('..')])
  refused([entry('a\0b')])
  refused([link('up', '../../tmp'), entry('up/x')])
  refused([link('up', '..'), entry('up/x')])
  refused([link('up', '/tmp'), directory('tmp'), entry('up/x')])
  refused([link('up', '/tmp')], [entry('up/x')])
  refused([link('up', '/')], [directory('etc'), entry('up/../x')])
  refused([directory('a'), link('a/b', '../../..'), entry('a/b/x')])
  refused([directory('a'), link('a/b', '../..')], [entry('a/b/x')])
  refused([link('one', 'two'), link('two', 'one'), entry('one/x')])
  refused([hard('x', '../../etc/passwd')])
  refused([hard('x', '/etc/passwd')])
  refused([link('etc', '/etc'), hard('x', 'etc/passwd')])
  refused([hard('x', 'missing')])
  refused([directory('d'), hard('x', 'd')])
  refused([entry('.wh...')])
  refused([entry('a/.wh.')])
  refused([link('up', '../..'), entry('up/.wh.x')])
  refused([link('up', '../..')], [entry('up/.wh..wh..opq')])
  refused([entry('f'), entry('f/x')])
  refused([entry('', { kind: 'symlink', target: '/tmp' })])
  refused([link('x', '')])
  // An absolute name is one of the image.
  assert.deepEqual(build([entry('/x'), entry('//y'), entry('./z')]).paths, ['/x', '/y', '/z'])
})

test('what no kernel could hold is refused', () => {
  refused([entry('n'.repeat(256))])
  refused([entry('a/'.repeat(3000))])
  refused([entry('x', { uid: -1 })])
  refused([entry('x', { gid: 2 ** 32 })])
  refused([link('x', 't'.repeat(4096))])
})

test('layers do what a simple model says', () => {
  const names = fc.constantFrom('a', 'b', 'c')
  const path = fc.array(names, { minLength: 1, maxLength: 3 }).map((parts) => parts.join('/'))
  const operation = fc.record({ path, does: fc.constantFrom('file', 'directory', 'remove', 'empty') })
  fc.assert(
    fc.property(
      fc.array(fc.uniqueArray(operation, { selector: ({ path }) => path, maxLength: 6 }), { maxLength: 4 }),
      (layers) => {
        let model = new Map<string, 'file' | 'directory'>()
        const applied: Entry[][] = []
        for (const layer of layers) {
          const operations = consistent(layer)
          model = apply(model, operations)
          applied.push(toLayer(operations))
        }
        const expected = [...model].map(([path, kind]) => (kind === 'file' ? `/${path}` : `/${path}/`)).sort()
        assert.deepEqual(build(...applied).paths, expected)
      },
    ),
    { numRuns: 2000 },
  )
})

type Does = 'file' | 'directory' | 'remove' | 'empty'
interface Operation {
  path: string
  does: Does
}

const parents = (path: string): string[] => {
  const parts = path.split('/')
  return parts.slice(0, -1).map((_, i) => parts.slice(0, i + 1).join('/'))
}
const isBelow = (path: string, above: string): boolean => path.startsWith(`${above}/`)

/** A real layer never makes something below its own file. */
function consistent(layer: Operation[]): Operation[] {
  const files = layer.filter(({ does }) => does === 'file').map(({ path }) => path)
  return layer.filter(({ path }) => !files.some((file) => isBelow(path, file)))
}

/** The model: first everything that the layer removes from below goes, then everything it brings comes. */
function apply(before: Map<string, 'file' | 'directory'>, operations: Operation[]): Map<string, 'file' | 'directory'> {
  const after = new Map(before)
  const drop = (test: (path: string) => boolean) => {
    for (const path of [...after.keys()]) if (test(path)) after.delete(path)
  }
  for (const { path, does } of operations) {
    if (does === 'remove') drop((other) => other === path || isBelow(other, path))
    if (does === 'empty') drop((other) => isBelow(other, path))
  }
  for (const { path, does } of operations) {
    for (const parent of parents(path)) after.set(parent, 'directory')
    if (does === 'empty') after.set(path, 'directory')
    if (does === 'directory' || does === 'file') after.set(path, does)
    if (does === 'file') drop((other) => isBelow(other, path))
  }
  return after
}

/** Every directory that something lies in comes before it, as in all layers that tools make. */
function toLayer(operations: Operation[]): Entry[] {
  return operations.flatMap(({ path, does }) => {
    const [, head = '', name = ''] = /^(.*\/)?([^/]+)$/.exec(path) ?? []
    const above = parents(path).map((parent) => directory(parent))
    if (does === 'file') return [...above, entry(path, { size: 1 })]
    if (does === 'directory') return [...above, directory(path)]
    if (does === 'empty') return [...above, directory(path), entry(`${path}/.wh..wh..opq`)]
    return [...above, entry(`${head}.wh.${name}`)]
  })
}
