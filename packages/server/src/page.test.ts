import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { paginate } from './page.ts'

const resource = (name: string, second: number) => ({
  metadata: { name, createdAt: new Date(second * 1000).toISOString() },
})
const nameOf = ({ metadata }: ReturnType<typeof resource>) => metadata.name

describe('pages', () => {
  it('together have every item once, newest first, equal times by name, whatever the order of the list', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.tuple(fc.string({ minLength: 1 }), fc.integer({ min: 0, max: 5 })), {
          selector: ([name]) => name,
        }),
        fc.integer({ min: 1, max: 7 }),
        fc.infiniteStream(fc.nat()),
        (facts, pageSize, random) => {
          const list = facts.map(([name, second]) => resource(name, second))
          const walk = (items: typeof list) => {
            const names: string[] = []
            for (let page = 1; ; page += 1) {
              const { items: part, pagination } = paginate(items, { page, pageSize }, nameOf)
              names.push(...part)
              assert.ok(part.length <= pageSize)
              assert.deepEqual(
                [pagination.totalItems, pagination.totalPages],
                [facts.length, Math.ceil(facts.length / pageSize)],
              )
              if (!pagination.hasNextPage) return names
            }
          }
          const expected = facts.toSorted(([a, x], [b, y]) => y - x || (a < b ? -1 : 1)).map(([name]) => name)
          assert.deepEqual(walk(list), expected)
          const keys = new Map(list.map((item) => [item, random.next().value]))
          assert.deepEqual(walk(list.toSorted((a, b) => (keys.get(a) ?? 0) - (keys.get(b) ?? 0))), expected)
        },
      ),
    )
  })

  it('past the end are empty', () => {
    assert.deepEqual(paginate([resource('a', 1)], { page: 3, pageSize: 1 }, nameOf), {
      items: [],
      pagination: { page: 3, pageSize: 1, totalItems: 1, totalPages: 1, hasNextPage: false },
    })
  })
})
