import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { test } from 'node:test'
import { newSandboxId } from '@icebox/model'
import { Tokens } from './traffic.ts'

const SECRET = Buffer.from('a secret')

test('the tokens of a sandbox are its own, and the same after a restart', () => {
  const [one, other] = [newSandboxId(), newSandboxId()].map((name) => ({ name, uid: randomUUID() }))
  assert.ok(one !== undefined && other !== undefined)
  // One that had the same id before.
  const earlier = { ...one, uid: randomUUID() }
  const tokens = new Tokens(SECRET)
  const all = [one, other, earlier].flatMap((each) => Object.values(tokens.of(each)))
  assert.equal(new Set([...all, new Tokens(Buffer.from('another')).of(one).access]).size, 7)
  assert.deepEqual(new Tokens(SECRET).of(one), tokens.of(one))
})
