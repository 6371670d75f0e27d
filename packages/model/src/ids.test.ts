import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  asExecutionId,
  asOperationId,
  asSandboxId,
  asSnapshotId,
  isId,
  newExecutionId,
  newOperationId,
  newSandboxId,
  newSnapshotId,
} from './ids.ts'

test('new ids are DNS labels of 20 characters, a letter first, and differ', () => {
  for (const make of [newSandboxId, newExecutionId, newSnapshotId, newOperationId]) {
    const ids = new Set(Array.from({ length: 2000 }, () => make()))
    assert.equal(ids.size, 2000)
    for (const id of ids) assert.match(id, /^[a-z][a-z0-9]{19}$/)
  }
})

test('every character is about equally likely', () => {
  const counts = new Map<string, number>()
  const rounds = 3000
  for (let i = 0; i < rounds; i++)
    for (const character of newSandboxId().slice(1)) counts.set(character, (counts.get(character) ?? 0) + 1)
  const mean = (rounds * 19) / 36
  assert.equal(counts.size, 36)
  // Eight standard deviations: chance alone does not fail this.
  for (const [character, count] of counts)
    assert.ok(Math.abs(count - mean) < 8 * Math.sqrt(mean), `${character}: ${count}`)
})

test('only what has the form of an id is taken for one', () => {
  const id: string = newSandboxId()
  for (const brand of [asSandboxId, asExecutionId, asSnapshotId, asOperationId]) assert.equal(brand(id), id)
  assert.ok(isId(id))
  for (const text of [
    '',
    'a',
    id.slice(1),
    `${id}a`,
    `1${id.slice(1)}`,
    id.toUpperCase(),
    `${id}\n`,
    '../../../../etc/passw',
    `-${id.slice(1)}`,
  ]) {
    assert.equal(isId(text), false, text)
    for (const brand of [asSandboxId, asExecutionId, asSnapshotId, asOperationId])
      assert.throws(() => brand(text), TypeError, text)
  }
})
