import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { test } from 'node:test'
import { newSandboxId, type Sandbox } from '@icebox/model'
import { metadataOf } from './testing.ts'
import { Whereabouts } from './traffic.ts'

const SECRET = Buffer.from('a secret')

const written = (namespace: string, name: string = newSandboxId()): Pick<Sandbox, 'metadata'> => ({
  metadata: metadataOf(name, { namespace, uid: randomUUID() }),
})

test('by what opens it, only those that were made last are looked at', () => {
  const whereabouts = new Whereabouts(SECRET)
  const all = Array.from({ length: 1000 }, () => written('mine'))
  for (const each of all) whereabouts.note(each, false)
  let looks = 0
  assert.equal(
    whereabouts.find(() => {
      looks++
      return false
    }),
    undefined,
  )
  assert.equal(looks, 128)
  const last = all.at(-1)
  assert.ok(last)
  const { access } = whereabouts.tokensOf(last)
  assert.equal(
    whereabouts.find((tokens) => tokens.access === access),
    last.metadata.name,
  )
})

test('a sandbox is found from its first write until it is gone, by its id and by what opens it', () => {
  const whereabouts = new Whereabouts(SECRET)
  const [one, other] = [written('mine'), written('theirs')]
  for (const each of [one, other, one]) whereabouts.note(each, false)
  assert.equal(whereabouts.projectOf(one.metadata.name), 'mine')
  assert.equal(whereabouts.projectOf(newSandboxId()), undefined)
  const { access, traffic } = whereabouts.tokensOf(other)
  assert.equal(
    whereabouts.find((tokens) => tokens.access === access),
    other.metadata.name,
  )
  whereabouts.note(other, true)
  assert.equal(whereabouts.projectOf(other.metadata.name), undefined)
  assert.equal(
    whereabouts.find((tokens) => tokens.access === access),
    undefined,
  )
  // The same after a restart, and for nothing but this sandbox.
  assert.deepEqual(new Whereabouts(SECRET).tokensOf(other), { access, traffic })
  const all = [access, traffic, ...Object.values(whereabouts.tokensOf(one))]
  assert.equal(new Set([...all, new Whereabouts(Buffer.from('another')).tokensOf(one).access]).size, 5)
})

test('of two that had the same id one after the other the later one counts', () => {
  const whereabouts = new Whereabouts(SECRET)
  const gone = written('mine')
  const next = written('mine', gone.metadata.name)
  whereabouts.note(gone, false)
  whereabouts.note(next, false)
  whereabouts.note(gone, true)
  assert.equal(whereabouts.projectOf(gone.metadata.name), 'mine')
  assert.notEqual(whereabouts.tokensOf(gone).access, whereabouts.tokensOf(next).access)
  const { access } = whereabouts.tokensOf(next)
  assert.ok(whereabouts.find((tokens) => tokens.access === access))
})
