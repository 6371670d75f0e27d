import assert from 'node:assert/strict'
import { EventEmitter } from 'node:events'
import { test } from 'node:test'
import { RequestMemory } from './memory.ts'

class Response extends EventEmitter {
  readonly destroyed = false
}

test('one name does not take what is another’s, and gives back what it held when its answers are over', () => {
  const memory = new RequestMemory('project', { each: 1000, inAll: 2000 })
  const [first, second, other] = [new Response(), new Response(), new Response()]
  memory.open('a', first).resize(700)
  assert.throws(() => memory.open('a', second).resize(301), { code: 'TooManyRequests' })
  memory.open('b', other).resize(1000)
  first.emit('close')
  memory.open('a', new Response()).resize(700)
})
