import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { paginate } from './page.ts'

describe('pages', () => {
  it('together have every item once, in the order of the list', () => {
    fc.assert(
      fc.property(fc.array(fc.integer()), fc.integer({ min: 1, max: 7 }), (list, pageSize) => {
        const all: string[] = []
        for (let page = 1; ; page += 1) {
          const { items, pagination } = paginate(list, { page, pageSize }, String)
          all.push(...items)
          assert.ok(items.length <= pageSize)
          assert.deepEqual(
            { ...pagination, hasNextPage: undefined },
            {
              page,
              pageSize,
              totalItems: list.length,
              totalPages: Math.ceil(list.length / pageSize),
              hasNextPage: undefined,
            },
          )
          if (!pagination.hasNextPage) break
        }
        assert.deepEqual(all, list.map(String))
      }),
    )
  })

  it('past the end are empty', () => {
    assert.deepEqual(paginate([1], { page: 3, pageSize: 1 }, String), {
      items: [],
      pagination: { page: 3, pageSize: 1, totalItems: 1, totalPages: 1, hasNextPage: false },
    })
  })
})
