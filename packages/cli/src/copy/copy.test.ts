import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { copy } from './copy.ts'
import { localPlace } from './local.ts'
import { operand } from './operand.ts'

/** The rules are the same for every place: here both are directories of this machine. */
function scratch(test: TestContext) {
  const root = mkdtempSync(join(tmpdir(), 'icebox-copy-'))
  test.after(() => rmSync(root, { recursive: true }))
  mkdirSync(join(root, 'dir/sub'), { recursive: true })
  writeFileSync(join(root, 'dir/a'), 'A')
  writeFileSync(join(root, 'dir/sub/b'), 'B'.repeat(2_000_000))
  chmodSync(join(root, 'dir/sub/b'), 0o4751)
  chmodSync(join(root, 'dir/sub'), 0o500)
  symlinkSync('../a', join(root, 'dir/sub/link'))
  symlinkSync('dir', join(root, 'to-dir'))
  symlinkSync('nowhere', join(root, 'dangling'))
  execFileSync('mkfifo', [join(root, 'dir/pipe')])
  mkdirSync(join(root, 'into'))
  writeFileSync(join(root, 'file'), 'old')
  const run = (from: string, to: string) =>
    copy(
      { place: localPlace, path: `${root}/${from}` },
      { place: localPlace, path: `${root}/${to}` },
      () => {},
      new AbortController().signal,
    )
  const tree = (path: string): string[] => readdirSync(join(root, path), { recursive: true }).map(String).sort()
  return { root, run, tree, text: (path: string) => readFileSync(join(root, path), 'utf8') }
}

const HOLDS = ['a', 'sub', 'sub/b', 'sub/link']

test('a pipe that is all there is to copy is refused', async (t) => {
  const { run, tree } = scratch(t)
  for (const to of ['into', 'into/x']) await assert.rejects(run('dir/pipe', to), { code: 'InvalidArgument' })
  assert.deepEqual(tree('into'), [])
})

test('a directory becomes what is not there, with modes and symlinks', async (t) => {
  const { root, run, tree, text } = scratch(t)
  const copied = await run('dir', 'new')
  assert.deepEqual(tree('new'), HOLDS)
  assert.deepEqual([copied.files, copied.bytes, copied.skipped], [2, 2_000_001, [join(root, 'dir/pipe')]])
  assert.equal(text('new/sub/b'), 'B'.repeat(2_000_000))
  assert.equal(readlinkSync(join(root, 'new/sub/link')), '../a')
  assert.equal(lstatSync(join(root, 'new/sub')).mode & 0o7777, 0o500)
  assert.equal(lstatSync(join(root, 'new/sub/b')).mode & 0o7777, 0o751, 'setuid stays behind')
})

test('a directory goes into one that is there, or only what it holds', async (t) => {
  const { run, tree } = scratch(t)
  await run('dir', 'into')
  assert.deepEqual(tree('into'), ['dir', ...HOLDS.map((path) => `dir/${path}`)])
  await run('dir/.', 'into')
  assert.deepEqual(tree('into'), [...HOLDS, 'dir', ...HOLDS.map((path) => `dir/${path}`)].sort())
})

test('a directory can be copied into itself', async (t) => {
  const { run, tree } = scratch(t)
  await run('dir', 'dir/sub')
  assert.ok(tree('dir').includes('sub/dir/sub/b'))
})

test('a file becomes the target, or goes into it', async (t) => {
  const { run, text, tree } = scratch(t)
  await run('dir/a', 'new')
  await run('dir/a', 'file')
  await run('dir/a', 'into')
  await run('dir/a', 'into/')
  assert.deepEqual([text('new'), text('file'), text('into/a')], ['A', 'A', 'A'])
  assert.deepEqual(tree('into'), ['a'], 'nothing half-written stays')
})

test('a symlink is copied itself, with a slash what it points to', async (t) => {
  const { root, run, tree } = scratch(t)
  await run('to-dir', 'link')
  assert.equal(readlinkSync(join(root, 'link')), 'dir')
  await run('dangling', 'into')
  assert.equal(readlinkSync(join(root, 'into/dangling')), 'nowhere')
  await run('to-dir/', 'through')
  assert.deepEqual(tree('through'), HOLDS)
  await run('dir/a', 'to-dir')
  assert.equal(
    lstatSync(join(root, 'to-dir')).isSymbolicLink(),
    true,
    'a symlink to a directory is a directory to copy into',
  )
})

test('nothing is written through a symlink that is in the way', async (t) => {
  const { root, run, tree } = scratch(t)
  mkdirSync(join(root, 'new'))
  symlinkSync('../into', join(root, 'new/sub'))
  await assert.rejects(run('dir/.', 'new'), { code: 'InvalidArgument', message: /in the way/ })
  assert.deepEqual(tree('into'), [])
})

test('what cannot be is refused before anything is written', async (t) => {
  const { root, run } = scratch(t)
  const before = readdirSync(root, { recursive: true }).sort()
  const cases: [from: string, to: string, code: string][] = [
    ['none', 'new', 'NotFound'],
    ['dir', 'file', 'InvalidArgument'],
    ['dir/a/', 'new', 'InvalidArgument'],
    ['dir/a', 'file/', 'InvalidArgument'],
    ['dir/a', 'new/', 'NotFound'],
    ['dir/a', 'none/new', 'NotFound'],
    ['dir', 'none/new', 'NotFound'],
    ['dangling/', 'new', 'NotFound'],
  ]
  for (const [from, to, code] of cases) await assert.rejects(run(from, to), { code }, `${from} to ${to}`)
  assert.deepEqual(readdirSync(root, { recursive: true }).sort(), before)
})

test('an interrupted copy says so', async (t) => {
  const { root } = scratch(t)
  const reason = new Error('stopped')
  const side = (path: string) => ({ place: localPlace, path: join(root, path) })
  await assert.rejects(
    copy(side('dir'), side('new'), () => {}, AbortSignal.abort(reason)),
    reason,
  )
})

test('operands', () => {
  assert.deepEqual(operand('box:/a'), { sandbox: 'box', path: '/a' })
  assert.deepEqual(operand('box:'), { sandbox: 'box', path: '.' })
  assert.deepEqual(operand('box:a:b'), { sandbox: 'box', path: 'a:b' })
  for (const path of ['/a:b', './a:b', '../a:b', 'a', '.', 'Box:/a'])
    assert.deepEqual(operand(path), { sandbox: undefined, path })
})
