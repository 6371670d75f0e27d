import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { IceboxError } from '@icebox/model'
import fc from 'fast-check'
import { metadataFilter } from './metadata-filter.ts'

const Text = fc.string({ unit: 'grapheme', minLength: 1 })

describe('the metadata filter', () => {
  it('gives back whatever a client of E2B encoded', () => {
    fc.assert(
      fc.property(fc.dictionary(Text, Text, { minKeys: 1, noNullPrototype: true }), (metadata) => {
        const encoded = Object.entries(metadata).map(([key, value]) => [
          encodeURIComponent(key),
          encodeURIComponent(value),
        ])
        assert.deepEqual(metadataFilter(new URLSearchParams(encoded).toString()), { metadata })
      }),
    )
  })

  it('takes what is encoded once, and refuses what is no pair', () => {
    assert.deepEqual(metadataFilter('user=abc&app=a%20b'), { metadata: { user: 'abc', app: 'a b' } })
    assert.deepEqual(metadataFilter(''), {})
    for (const wrong of ['a', 'a=b=c', 'a=b&', '%zz=1'])
      assert.throws(
        () => metadataFilter(wrong),
        (error) => error instanceof IceboxError && error.code === 'InvalidArgument',
        wrong,
      )
  })
})
