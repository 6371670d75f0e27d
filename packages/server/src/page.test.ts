import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { isError } from '@icebox/model'
import fc from 'fast-check'
import { pageOf, paginate } from './page.ts'

describe('pages', () => {
  it('say where they are in the list', () => {
    fc.assert(
      fc.property(
        fc.nat(30),
        fc.integer({ min: 1, max: 7 }),
        fc.integer({ min: 1, max: 9 }),
        (total, pageSize, page) => {
          const { limit, skip = 0 } = pageOf({ page, pageSize })
          const from = Math.min(skip, total)
          const items = Array.from({ length: Math.min(limit, total - from) }, (_, at) => from + at)
          const answer = paginate({ items, from, total }, { page, pageSize }, String)
          const totalPages = Math.ceil(total / pageSize)
          assert.deepEqual(answer.items, items.map(String))
          assert.deepEqual(answer.pagination, { page, pageSize, totalItems: total, totalPages, hasNextPage: false })
        },
      ),
    )
  })

  it('by token say which they are', () => {
    const { pagination } = paginate({ items: ['x'], from: 4, total: 9, next: 'token' }, { pageSize: 2 }, String)
    assert.deepEqual(pagination, {
      page: 3,
      pageSize: 2,
      totalItems: 9,
      totalPages: 5,
      hasNextPage: true,
      nextToken: 'token',
    })
  })

  it('are chosen by number or by token, not by both', () => {
    assert.throws(
      () => pageOf({ page: 2, pageSize: 1, after: 'token' }),
      (error) => isError(error, 'InvalidArgument'),
    )
  })
})
