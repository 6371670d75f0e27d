import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { Budget, Budgets, collect } from './budget.ts'
import { isError } from './errors.ts'

const full = (thrown: unknown) => isError(thrown, 'TooManyRequests')

async function* chunks(...sizes: number[]): AsyncGenerator<Uint8Array> {
  for (const size of sizes) yield new Uint8Array(size).fill(size)
}

test('a budget is never exceeded, and what is released may be reserved again', () => {
  const operation = fc.record({
    slot: fc.nat(4),
    bytes: fc.nat(60),
    verb: fc.constantFrom('reserve', 'resize', 'release'),
  })
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 60 }), (operations) => {
      const around = new Budget('server', 150)
      const budgets = [new Budget('a', 100, around), new Budget('b', 100, around)]
      const held = new Map<number, ReturnType<Budget['reserve']>>()
      for (const { slot, bytes, verb } of operations) {
        const budget = budgets[slot % 2] ?? around
        try {
          if (verb === 'reserve' && !held.has(slot)) held.set(slot, budget.reserve(bytes))
          if (verb === 'resize') held.get(slot)?.resize(bytes)
          if (verb === 'release') {
            held.get(slot)?.release()
            held.get(slot)?.release()
            held.delete(slot)
          }
        } catch (thrown) {
          assert.ok(full(thrown))
        }
        const sum = (of: (slot: number) => boolean) =>
          [...held].filter(([key]) => of(key)).reduce((total, [, { bytes }]) => total + bytes, 0)
        assert.equal(
          budgets[0]?.used,
          sum((key) => key % 2 === 0),
        )
        assert.equal(
          budgets[1]?.used,
          sum((key) => key % 2 === 1),
        )
        assert.equal(
          around.used,
          sum(() => true),
        )
        assert.ok(around.used <= 150)
      }
    }),
  )
})

test('the error names the budget that is full', () => {
  const projects = new Budgets((name) => `project ${name}`, 10, new Budget('the server', 15))
  using _a = projects.of('a').reserve(10)
  assert.throws(() => projects.of('a').reserve(1), /project a holds 10 of 10 bytes/)
  assert.throws(() => projects.of('b').reserve(6), /the server holds 10 of 15 bytes/)
  using _b = projects.of('b').reserve(5)
})

test('a stream is collected up to its bound and within its budget', async () => {
  const budget = new Budget('the request', 4096)
  {
    using held = budget.reserve(10)
    const bytes = await collect(chunks(1, 2, 3), 6, held)
    assert.deepEqual([...bytes], [1, 2, 2, 3, 3, 3])
    assert.equal(budget.used, 16)
  }
  assert.equal(budget.used, 0)
  await assert.rejects(collect(chunks(4, 3), 6), (thrown) => isError(thrown, 'TooLarge'))
  using held = budget.reserve(0)
  await assert.rejects(collect(chunks(...Array<number>(100).fill(1)), 1000, held), full)
})

test('what ends early ends the stream', async () => {
  let ended = false
  async function* endless() {
    try {
      for (;;) yield new Uint8Array(10)
    } finally {
      ended = true
    }
  }
  await assert.rejects(collect(endless(), 100))
  assert.ok(ended)
})
