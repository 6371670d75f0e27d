import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isError } from '@icebox/model'
import fc from 'fast-check'
import { Ordered } from './cache/ordered.ts'
import { type Order, oldestFirst, slice } from './page.ts'

const resource = (second: number, name: string) => ({ createdAt: new Date(second * 1000).toISOString(), name })
type Resource = ReturnType<typeof resource>
const listOf = (resources: Resource[]) => new Ordered<Resource>(oldestFirst, resources)

test('what is there throughout is in exactly one part, whatever comes and goes in between', () => {
  const listed = fc.uniqueArray(
    fc.record({ second: fc.nat(5), name: fc.string({ minLength: 1, maxLength: 3 }), fate: fc.nat(8) }),
    { selector: ({ name }) => name, maxLength: 30 },
  )
  fc.assert(
    fc.property(
      listed,
      fc.integer({ min: 1, max: 4 }),
      fc.constantFrom<Order>('newest', 'oldest'),
      (all, limit, order) => {
        // A fate below 4 is the turn at which it goes, one of 4 to 6 that at which it comes; the others stay.
        const present = (turn: number): Resource[] =>
          all
            .filter(({ fate }) => (fate < 4 ? turn < fate : fate < 7 ? turn >= fate - 3 : true))
            .map(({ second, name }) => resource(second, name))
        const seen: string[] = []
        let after: string | undefined
        let turn = 0
        do {
          const part = slice(listOf(present(turn)), { limit, after, order })
          assert.ok(part.items.length <= limit)
          seen.push(...part.items.map(({ name }) => name))
          after = part.next
          assert.ok(turn <= all.length, 'it ends')
          turn += 1
        } while (after !== undefined)
        assert.equal(new Set(seen).size, seen.length, 'nothing twice')
        for (const { name } of all.filter(({ fate }) => fate >= 7)) assert.ok(seen.includes(name), `${name} is missing`)
      },
    ),
  )
})

test('the order is by age, then by name', () => {
  const [a, b, c] = [resource(1, 'a'), resource(1, 'b'), resource(2, 'c')]
  assert.deepEqual(slice(listOf([b, c, a]), { limit: 9 }).items, [c, a, b])
  assert.deepEqual(slice(listOf([b, c, a]), { limit: 9, order: 'oldest' }).items, [b, a, c])
})

test('a token that no list has given is refused', () => {
  for (const after of [
    '',
    'x',
    Buffer.from('{}').toString('base64url'),
    Buffer.from('["now","x"]').toString('base64url'),
  ])
    assert.throws(
      () => slice(listOf([]), { limit: 1, after }),
      (error) => isError(error, 'InvalidArgument'),
    )
})

test('a page by number, and one of what fits, are cut from what is in the list', () => {
  const names = fc.uniqueArray(fc.tuple(fc.nat(5), fc.string({ minLength: 1, maxLength: 2 })), {
    selector: ([, name]) => name,
  })
  fc.assert(
    fc.property(names, fc.nat(9), fc.nat(9), fc.constantFrom<Order>('newest', 'oldest'), (all, skip, limit, order) => {
      const fits = ({ name }: Resource) => name < 'm'
      const list = listOf(all.map(([second, name]) => resource(second, name)))
      const expected = [...list].filter(fits)
      if (order === 'newest') expected.reverse()
      const part = slice(list, { limit, skip, order }, fits)
      assert.deepEqual(part.items, expected.slice(skip, skip + limit))
      assert.equal(part.total, expected.length)
      assert.equal(part.next !== undefined, part.items.length > 0 && skip + limit < expected.length)
    }),
  )
})
