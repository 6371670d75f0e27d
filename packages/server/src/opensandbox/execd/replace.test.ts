import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { replacing } from './replace.ts'

async function* streamOf(chunks: Iterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  yield* chunks
}

test('bytes are replaced wherever the stream is cut', async () => {
  const text = fc.string({ unit: fc.constantFrom('a', 'b'), maxLength: 30 })
  const needle = fc.string({ unit: fc.constantFrom('a', 'b'), minLength: 1, maxLength: 5 })
  await fc.assert(
    fc.asyncProperty(fc.array(text, { maxLength: 6 }), needle, text, async (chunks, old, by) => {
      const found = replacing(Buffer.from(old), Buffer.from(by))
      const got = await Array.fromAsync(found.replaced(streamOf(chunks.map((chunk) => Buffer.from(chunk)))))
      const pieces = chunks.join('').split(old)
      assert.equal(Buffer.concat(got).toString(), pieces.join(by))
      assert.equal(found.found, pieces.length - 1)
    }),
    { numRuns: 2000 },
  )
})

test('a needle that nearly matches everywhere costs no more than another', { timeout: 20_000 }, async () => {
  const old = Buffer.alloc(65_536, 'a')
  old[0] = 98
  const chunk = Buffer.alloc(65_536, 'a')
  const found = replacing(old, Buffer.from(''))
  let bytes = 0
  for await (const piece of found.replaced(streamOf(Array.from({ length: 256 }, () => chunk)))) bytes += piece.length
  assert.deepEqual([bytes, found.found], [256 * 65_536, 0])
})
