import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { closest, distance } from './suggest.ts'
import { split, unknownCommand } from './words.ts'

test('a command is found behind flags for all commands, which go to it', () => {
  assert.deepEqual(split(['--data', 'ps', '--json', 'ps', '--url', 'u']), {
    words: 'ps',
    group: undefined,
    before: ['--data', 'ps', '--json'],
    after: ['--url', 'u'],
  })
  assert.deepEqual(split(['snapshot', '--json', 'list', 'x']), {
    words: 'snapshot list',
    group: 'snapshot',
    before: ['--json'],
    after: ['x'],
  })
  assert.equal(split(['exec', 'ps', '--', 'down']).words, 'exec')
  assert.equal(split(['sandbox']).words, undefined)
  assert.equal(split(['toString']).words, undefined)
})

const MEANT: [group: string | undefined, word: string, meant: RegExp][] = [
  [undefined, 'sandox', /"icebox sandbox"\?$/],
  [undefined, 'pul', /"icebox image pull" or "icebox snapshot pull"/],
  [undefined, 'pull', /"icebox image pull" or "icebox snapshot pull"/],
  [undefined, 'exce', /"icebox exec"/],
  [undefined, 'rm', /"icebox sandbox delete"/],
  [undefined, 'start', /"icebox up" or "icebox resume"/],
  ['sandbox', 'lst', /"icebox sandbox list"\?$/],
  ['sandbox', 'xyzzy', /"icebox sandbox create" or/],
  ['snapshot', '', /needs one of: .*snapshot tree/],
]
for (const [group, word, meant] of MEANT)
  test(`a wrong command suggests the right one: ${group ?? ''} ${word}`, () => {
    assert.match(unknownCommand(group, word === '' ? [] : [word]).message, meant)
  })

test('what is like nothing suggests nothing', () => {
  assert.equal(unknownCommand(undefined, ['xyzzyx']).message, 'there is no command "xyzzyx"')
})

test('edits are counted', () => {
  const cases: [string, string, number][] = [
    ['', '', 0],
    ['a', '', 1],
    ['sandox', 'sandbox', 1],
    ['exce', 'exec', 1],
    ['kitten', 'sitting', 3],
  ]
  for (const [a, b, edits] of cases) assert.equal(distance(a, b), edits)
  fc.assert(
    fc.property(fc.string({ maxLength: 12 }), fc.string({ maxLength: 12 }), (a, b) => {
      assert.equal(distance(a, b), distance(b, a))
      assert.equal(distance(a, b) === 0, a === b)
      assert.ok(distance(a, b) <= Math.max(a.length, b.length))
    }),
  )
  assert.deepEqual(closest('ab', ['zz']), [])
})
