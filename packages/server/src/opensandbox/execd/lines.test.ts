import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Lines } from './lines.ts'

const bytes = (text: string) => new TextEncoder().encode(text)

test('lines come when they are complete, empty ones too, and the rest at the end', () => {
  const lines = new Lines()
  assert.deepEqual(lines.add(bytes('a\n\nb')), ['a', ''])
  assert.deepEqual(lines.add(bytes('c\n')), ['bc'])
  assert.deepEqual(lines.add(bytes('d')), [])
  assert.deepEqual(lines.end(), ['d'])
  assert.deepEqual(lines.end(), [])
})

test('however the bytes are cut, also within a character, the lines are the same', () => {
  fc.assert(
    fc.property(fc.string({ unit: fc.constantFrom('a', '\n', 'ü', '😀', '\r') }), fc.array(fc.nat(5)), (text, cuts) => {
      const lines = new Lines()
      const all = bytes(text)
      const got: string[] = []
      let at = 0
      for (const cut of [...cuts, all.length]) {
        got.push(...lines.add(all.subarray(at, at + cut)))
        at = Math.min(all.length, at + cut)
      }
      got.push(...lines.end())
      const want = text.split('\n')
      if (want.at(-1) === '') want.pop()
      assert.deepEqual(got, want)
    }),
  )
})

test('a line without an end is not held back for ever', () => {
  const lines = new Lines()
  const piece = new Uint8Array(700_000).fill(97)
  assert.deepEqual(lines.add(piece), [])
  assert.deepEqual(
    lines.add(piece).map(({ length }) => length),
    [1_400_000],
  )
  assert.deepEqual(lines.end(), [])
})

test('a long line that comes byte by byte costs no more than its length', { timeout: 20_000 }, () => {
  const lines = new Lines()
  const found: string[] = []
  for (let byte = 0; byte < 900_000; byte++) found.push(...lines.add(Buffer.from('x')))
  assert.deepEqual([...found, ...lines.end()], ['x'.repeat(900_000)])
})
