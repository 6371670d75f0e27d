import assert from 'node:assert/strict'
import { test } from 'node:test'
import { faultsOf, section, withSection } from './compatibility.ts'

const WHY = 'there are none here'

test('a call must be tried or listed, and what is listed must be there', () => {
  const calls = { all: ['Box.create', 'box.kill', 'Volume.create', 'Volume.list'], called: ['Box.create'] }
  assert.deepEqual(faultsOf(calls, { 'Volume.*': { is: 'absent', why: WHY } }), [
    'box.kill is tried by no test and listed nowhere',
  ])
  const listed = { 'Volume.*': { is: 'absent', why: WHY }, 'box.kill': { is: 'differs', why: WHY } } as const
  assert.deepEqual(faultsOf(calls, listed), [])
  assert.deepEqual(faultsOf(calls, { ...listed, 'box.die': { is: 'absent', why: WHY } }), [
    'box.die is listed, but the client has no such call',
  ])
  // An option that differs does not excuse the call.
  const { 'box.kill': _, ...volumes } = listed
  assert.deepEqual(faultsOf(calls, { ...volumes, 'box.kill (force)': { is: 'differs', why: WHY } }), [
    'box.kill is tried by no test and listed nowhere',
  ])
  assert.deepEqual(faultsOf({ all: [], called: ['x'] }, {}), ['x was called, but the client does not export it'])
})

test('the page is the same for the same results, in whatever order the clients ran', () => {
  const calls = { all: ['a', 'b', 'c.d'], called: ['a', 'b'] }
  const differences = { 'c.*': { is: 'absent', why: 'x | y' }, 'a (o)': { is: 'differs', why: WHY } } as const
  const one = section('one', calls, differences)
  assert.match(one, /^## one\n\n2 of 3 calls behave as they do there: `a`, `b`\.\n/)
  assert.match(one, /\| `a \(o\)` \| differs \| there are none here \|\n\| `c\.\*` \| absent \| x \\\| y \|\n$/)
  const two = section('two', calls, { 'c.d': { is: 'absent', why: WHY } })
  const page = withSection(withSection('', 'two', two), 'one', one)
  assert.equal(withSection(withSection('', 'one', one), 'two', two), page)
  assert.equal(withSection(page, 'one', one), page)
  assert.ok(page.indexOf('## one') < page.indexOf('## two') && page.startsWith('# Compatibility\n'))
})
