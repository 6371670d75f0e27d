import assert from 'node:assert/strict'
import { test } from 'node:test'
import { stripVTControlCharacters } from 'node:util'
import { failureOf } from './failure.ts'
import { imageReference } from './image-reference.ts'
import { duration, facts, size, table } from './output.ts'
import { amount } from './progress.ts'
import { statusOf } from './terminal.ts'
import { drawTree, treeOf } from './tree.ts'

test('tables are aligned, whatever the characters', () => {
  const text = table(
    [
      { a: 'x', b: 'grün' },
      { a: 'longer', b: '' },
    ],
    [
      { title: 'A', cell: ({ a }) => a, style: () => 'red' },
      { title: 'B', cell: ({ b }) => b },
    ],
  )
  assert.equal(stripVTControlCharacters(text), 'A       B\nx       grün\nlonger')
  assert.equal(stripVTControlCharacters(table([], [{ title: 'A', cell: () => '' }])), 'A')
  assert.equal(
    stripVTControlCharacters(
      facts([
        ['id', 'x'],
        ['created', 'y'],
        ['none', undefined],
      ]),
    ),
    'id       x\ncreated  y',
  )
})

test('sizes and times are told in the units people use', () => {
  assert.deepEqual([0, 1023, 1024, 1536, 2 ** 30 * 200].map(size), ['0 B', '1023 B', '1.0 KiB', '1.5 KiB', '200 GiB'])
  assert.deepEqual([0, 59, 60, 3661, 90_061, -5].map(duration), ['0s', '59s', '1m', '1h 1m', '1d 1h', '0s'])
})

test('how far work is', () => {
  assert.equal(amount({}), '')
  assert.equal(amount({ done: 512, unit: 'bytes' }), '512 B')
  assert.equal(amount({ done: 5, total: 10, unit: 'files' }), '[############------------]  5 of 10 files')
  assert.equal(amount({ done: 20, total: 10 }), `[${'#'.repeat(24)}]  20 of 10`)
})

test('the status of a command is that of a shell, timeout(1) and signals included', () => {
  assert.equal(statusOf({ exitCode: 3, timedOut: false }), 3)
  assert.equal(statusOf({ signal: 'SIGKILL', timedOut: false }), 137)
  assert.equal(statusOf({ signal: 'SIGINT', timedOut: false }), 130)
  assert.equal(statusOf({ signal: 'SIGKILL', timedOut: true }), 124)
})

test('errors of the system have codes of the registry', () => {
  const error = Object.assign(new Error("ENOENT: no such file or directory, open 'x'"), { code: 'ENOENT' })
  assert.equal(failureOf(error).code, 'NotFound')
  assert.equal(failureOf(new Error('what?')).code, 'Internal')
  assert.equal(failureOf('text').message, 'text')
})

test('paths in image references become absolute, everything else stays', () => {
  const here = process.cwd()
  assert.equal(imageReference('oci:dir:tag'), `oci:${here}/dir:tag`)
  assert.equal(imageReference('dir:.'), `dir:${here}`)
  assert.equal(imageReference('tar:/a/../b.tar'), 'tar:/b.tar')
  assert.equal(imageReference('python:3.12'), 'python:3.12')
  assert.equal(imageReference('debian:bookworm+git'), 'debian:bookworm+git')
})

test('snapshots stand below their parents', () => {
  const at = (id: string, createdAt: string, parentId?: string) => ({
    id,
    kind: 'memory' as const,
    sandboxId: 'box',
    image: 'i',
    size: { cpu: 1, memoryMiB: 1, diskMiB: 1 },
    status: { state: 'Ready' as const },
    createdAt: `2026-01-0${createdAt}T00:00:00.000Z`,
    ...(parentId === undefined ? {} : { parentId }),
  })
  const roots = treeOf([at('d', '4', 'b'), at('c', '3', 'a'), at('b', '2', 'a'), at('a', '1'), at('e', '5', 'gone')])
  assert.deepEqual(
    stripVTControlCharacters(drawTree(roots))
      .split('\n')
      .map((line) => line.replace(/ {2}memory.*$/, '')),
    ['a', '├─ b', '│  └─ d', '└─ c', 'e'],
  )
})
