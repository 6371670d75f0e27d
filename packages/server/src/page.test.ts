import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { isError, type Metadata } from '@icebox/model'
import fc from 'fast-check'
import { paginate } from './page.ts'

const resource = (number: number): { metadata: Metadata } => ({
  metadata: {
    namespace: 'default',
    name: `n${number}`,
    uid: `u${number}`,
    resourceVersion: '1',
    generation: 1,
    labels: {},
    annotations: {},
    // The newest is the first.
    createdAt: new Date(1e12 - number).toISOString(),
    finalizers: [],
    ownerReferences: [],
  },
})
const nameOf = ({ metadata }: { metadata: Metadata }) => metadata.name
const listOf = (length: number) => Array.from({ length }, (_, number) => resource(number))

describe('pages', () => {
  it('together have every item once, in the order of the list', () => {
    fc.assert(
      fc.property(fc.nat(30), fc.integer({ min: 1, max: 7 }), fc.boolean(), (length, pageSize, byToken) => {
        const list = listOf(length)
        const all: string[] = []
        let after: string | undefined
        for (let page = 1; ; page += 1) {
          const { items, pagination } = paginate(
            list,
            byToken && after !== undefined ? { after, pageSize } : { page, pageSize },
            nameOf,
          )
          all.push(...items)
          assert.ok(items.length <= pageSize)
          const { hasNextPage, nextToken, ...numbers } = pagination
          assert.deepEqual(numbers, { page, pageSize, totalItems: length, totalPages: Math.ceil(length / pageSize) })
          assert.equal(nextToken !== undefined, hasNextPage)
          after = nextToken
          if (!hasNextPage) break
        }
        assert.deepEqual(all, list.map(nameOf))
      }),
    )
  })

  it('past the end are empty', () => {
    assert.deepEqual(paginate(listOf(1), { page: 3, pageSize: 1 }, nameOf), {
      items: [],
      pagination: { page: 3, pageSize: 1, totalItems: 1, totalPages: 1, hasNextPage: false },
    })
  })

  it('are chosen by number or by token, not by both', () => {
    const { pagination } = paginate(listOf(2), { pageSize: 1 }, nameOf)
    assert.throws(
      () => paginate(listOf(2), { page: 2, pageSize: 1, after: pagination.nextToken ?? '' }, nameOf),
      (error) => isError(error, 'InvalidArgument'),
    )
  })
})
