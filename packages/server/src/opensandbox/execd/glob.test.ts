import assert from 'node:assert/strict'
import { posix } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { globMatcher } from './glob.ts'

test('patterns match as those of shells do', () => {
  const cases: [pattern: string, matched: string[], others: string[]][] = [
    ['*.txt', ['a.txt'], ['.txt', 'a.txt.gz', 'd/a.txt']],
    ['**/*.txt', ['a.txt', 'd/a.txt', 'd/e/a.txt'], ['.d/a.txt', 'd/.txt']],
    ['d/**', ['d/a', 'd/e/a'], ['e/a', 'd/.a']],
    ['[a-c]?[!x]', ['abc', 'b..'], ['axx', 'dbc', 'ab']],
    ['{a,b{c,d}}.txt', ['a.txt', 'bc.txt', 'bd.txt'], ['b.txt', 'ac.txt']],
    ['.*', ['.profile'], ['profile']],
    ['\\*', ['*'], ['a']],
    ['[', ['['], ['a']],
    ['{a', ['{a'], ['a']],
  ]
  for (const [pattern, matched, others] of cases) {
    const matches = globMatcher(pattern)
    for (const path of matched) assert.equal(matches(path), true, `${pattern} ${path}`)
    for (const path of others) assert.equal(matches(path), false, `${pattern} ${path}`)
  }
})

test('names and directories match as with the platform', () => {
  const name = fc.string({ unit: fc.constantFrom('a', 'b', '.', '*', '?', '[ab]', '[!b]'), minLength: 1, maxLength: 6 })
  // Four stars are no pattern of anybody's, and names . and .. are in no listing.
  const part = fc
    .oneof(fc.constant('**'), name)
    .filter((text) => !/^\.+$/.test(text) && (text === '**' || !text.includes('**')))
  const file = fc
    .string({ unit: fc.constantFrom('a', 'b', '.'), minLength: 1, maxLength: 5 })
    .filter((text) => !/^\.+$/.test(text))
  fc.assert(
    fc.property(
      fc.array(part, { minLength: 1, maxLength: 3 }),
      fc.array(file, { minLength: 1, maxLength: 3 }),
      (parts, names) => {
        const [pattern, path] = [parts.join('/'), names.join('/')]
        assert.equal(globMatcher(pattern)(path), posix.matchesGlob(path, pattern), `${pattern} of ${path}`)
      },
    ),
    { numRuns: 20_000 },
  )
})

test('the longest pattern costs the longest path no more than their product', { timeout: 20_000 }, () => {
  for (const piece of ['*a', '*?', '**/', '{a,*}', '[a-z]*', '*[!b]', '{a,{b,*a}}*']) {
    const matches = globMatcher(`${piece.repeat(Math.floor(255 / piece.length))}b`)
    assert.equal(matches(`${'a'.repeat(4095)}c`), false)
    assert.equal(matches(`${'a/'.repeat(2047)}c`), false)
  }
  assert.throws(() => globMatcher('*'.repeat(257)), { code: 'InvalidArgument' })
})
