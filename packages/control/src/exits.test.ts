import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { asExecutionId, newExecutionId, newSandboxId } from '@icebox/model'
import { Exits } from './exits.ts'
import { openTestStore, SPEC, statusOf } from './testing.ts'

async function place(t: TestContext) {
  const { cache, recordsOf } = await openTestStore(t)
  return { records: recordsOf('mine'), exits: new Exits(recordsOf, cache, () => undefined) }
}

const status = (state: 'creating' | 'running', execution?: string) =>
  statusOf(state, execution === undefined ? {} : { execution })
const exitOf = (execution: string) => ({
  execution: asExecutionId(execution),
  reason: 'OutOfMemory' as const,
  message: 'it used more than it has',
})

test('who stands on a run that ends has failed, with its reason', async (t) => {
  const { records, exits } = await place(t)
  const [name, other, execution] = [newSandboxId(), newSandboxId(), newExecutionId()]
  await records.create('Sandbox', name, { spec: SPEC, status: status('running', execution) })
  await records.create('Sandbox', other, { spec: SPEC, status: status('running', newExecutionId()) })
  await exits.ended(exitOf(execution))
  const failed = (await records.get('Sandbox', name)).status
  assert.deepEqual([failed.state, failed.reason, failed.message], ['failed', 'OutOfMemory', 'it used more than it has'])
  assert.equal((await records.get('Sandbox', other)).status.state, 'running')
})

test('a run that ended before anybody was written to stand on it fails whoever is', async (t) => {
  const { records, exits } = await place(t)
  const [name, execution] = [newSandboxId(), newExecutionId()]
  await records.create('Sandbox', name, { spec: SPEC, status: status('creating') })
  await exits.ended(exitOf(execution))
  assert.equal((await records.get('Sandbox', name)).status.state, 'creating')
  await exits.check(await records.setStatus('Sandbox', name, () => status('running', execution)))
  assert.equal((await records.get('Sandbox', name)).status.state, 'failed')

  const later = newExecutionId()
  await exits.check(await records.create('Sandbox', newSandboxId(), { spec: SPEC, status: status('running', later) }))
  assert.equal((await records.get('Sandbox', name)).status.reason, 'OutOfMemory')
})
