import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isError, newSandboxId } from '@icebox/model'
import { Admission } from './admission.ts'
import { requireBounded, requireRecords } from './bounds.ts'
import { Limits } from './limits.ts'
import { openTestStore, SPEC, statusOf } from './testing.ts'

test('what a resource is to keep is bounded by its bytes, and the refusal names the field', () => {
  const half = 'é'.repeat(17_000)
  requireBounded({ env: { A: half }, metadata: undefined })
  assert.throws(
    () => requireBounded({ env: { A: half }, metadata: { a: half, b: half, c: 'x' } }),
    (error) => isError(error, 'TooLarge') && error.message.startsWith('metadata: '),
  )
})

test('records count against their project in every state', async (t) => {
  const { cache, recordsOf } = await openTestStore(t)
  const sandboxesOf = (project: string) => cache.of('Sandbox', project)
  const admission = new Admission(Limits.parse({ records: 3 }), sandboxesOf, new AbortController().signal)
  const mine = { admission, records: recordsOf('mine') }
  for (const state of ['failed', 'paused'] as const)
    await mine.records.create('Sandbox', newSandboxId(), { spec: SPEC, status: statusOf(state) })
  requireRecords(mine, 'Sandbox')
  assert.throws(
    () => requireRecords(mine, 'Sandbox', 2),
    (error) => isError(error, 'TooManyRequests') && error.details.limit === 'records',
  )
  requireRecords({ admission, records: recordsOf('theirs') }, 'Sandbox', 3)
})
