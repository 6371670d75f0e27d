import assert from 'node:assert/strict'
import { test } from 'node:test'
import { roundRobin } from './round-robin.ts'

test('each group has its turn, however many another has', () => {
  const all = [...Array.from({ length: 100 }, (_, index) => `many-${index}`), 'few-0', 'few-1', 'one-0']
  const order = roundRobin(all, (name) => name.slice(0, name.indexOf('-')))
  assert.deepEqual(order.slice(0, 6), ['many-0', 'few-0', 'one-0', 'many-1', 'few-1', 'many-2'])
  assert.deepEqual([...order].sort(), [...all].sort())
  assert.deepEqual(
    roundRobin([], () => ''),
    [],
  )
})
