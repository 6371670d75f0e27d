import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { isIceboxError } from '@icebox/sdk'
import { checkRemains } from './faults/history/remains.ts'
import { takeCensus } from './faults/load/census.ts'
import { buildBase, output, ServerProcess } from './server-process.ts'

const REQUESTS = 500
const SETTLE_MS = 60_000

let server: ServerProcess
before(async () => {
  server = await ServerProcess.start('overload')
  await buildBase(server.icebox, { memoryMiB: 64, diskMiB: 64 })
})
after(() => server[Symbol.asyncDispose]())

test(`of ${REQUESTS} creates at once each succeeds or is told to come later, and nothing half made remains`, async () => {
  const outcomes = await Promise.allSettled(
    Array.from({ length: REQUESTS }, () => server.icebox.sandboxes.create({ template: 'base' })),
  )
  const made = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []))
  for (const outcome of outcomes)
    if (outcome.status === 'rejected')
      assert.ok(isIceboxError(outcome.reason, 'TooManyRequests'), `refused with ${outcome.reason}`)
  assert.ok(made.length > 0, 'some succeed')
  assert.ok(made.length < REQUESTS, 'more than the limits allow were asked for')

  const census = () => takeCensus(server.icebox, server.dataDirectory, () => performance.now(), SETTLE_MS)
  const there = await census()
  assert.deepEqual(there.sandboxes.map(({ id }) => id).sort(), made.map(({ id }) => id).sort())
  assert.deepEqual(checkRemains([there]), [])
  const [first] = made
  assert.equal(first && (await output(first.exec(['echo', 'works']))), 'works')

  await Promise.all(made.map((sandbox) => sandbox.delete()))
  const left = await census()
  assert.deepEqual(left.sandboxes, [])
  assert.deepEqual(checkRemains([left]), [])
  // There is room again.
  await (await server.icebox.sandboxes.create({ template: 'base' })).delete()
})
