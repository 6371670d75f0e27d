import assert from 'node:assert/strict'
import { test } from 'node:test'
import { interruptible } from './interrupt.ts'

test('what fails once it was told to stop has been stopped, whatever it says itself', async () => {
  assert.equal(await interruptible(async () => 'done'), 'done')
  await assert.rejects(
    interruptible(async () => {
      throw new Error('broken')
    }),
    { message: 'broken' },
  )
  const work = interruptible(async (stop) => {
    process.emit('SIGINT', 'SIGINT')
    assert.ok(stop.aborted)
    throw new Error('the operation was aborted')
  })
  await assert.rejects(work, { message: 'stopped by SIGINT', status: 130 })
})
