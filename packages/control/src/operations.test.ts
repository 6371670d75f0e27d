import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isError } from '@icebox/model'
import { Operations } from './operations.ts'

test('equal operations join, different ones are refused, and both may begin again afterwards', async () => {
  const operations = new Operations()
  const work = Promise.withResolvers<string>()
  let begun = 0
  const begin = async () => {
    begun += 1
    return { resource: 'intent', settled: work.promise }
  }
  const [first, second] = await Promise.all([
    operations.exclusive('a', 'pause', begin),
    operations.exclusive('a', 'pause', begin),
  ])
  assert.equal(begun, 1)
  assert.equal(first.settled, second.settled)
  await assert.rejects(operations.exclusive('a', 'resume', begin), (error) => isError(error, 'Conflict'))
  await assert.rejects(
    operations.passing('a', 'snapshot', async () => 1),
    (error) => isError(error, 'Conflict'),
  )
  work.resolve('done')
  await operations.idle()
  assert.equal(operations.isBusy('a'), false)
  const again = await operations.exclusive('a', 'resume', async () => ({ resource: '', settled: Promise.resolve('') }))
  await again.settled
})

test('a failed intent or a failed operation frees the resource', async () => {
  const operations = new Operations()
  await assert.rejects(
    operations.exclusive('a', 'pause', async () => {
      throw new Error('no intent')
    }),
  )
  const { settled } = await operations.exclusive('a', 'pause', async () => ({
    resource: 1,
    settled: Promise.reject(new Error('no pause')),
  }))
  await assert.rejects(settled)
  await operations.idle()
  assert.equal(operations.isBusy('a'), false)
})

test('a delete waits for what is under way and then goes, whatever the end of that was', async () => {
  const operations = new Operations()
  const pause = Promise.withResolvers<number>()
  const order: string[] = []
  const paused = await operations.exclusive('a', 'pause', async () => ({ resource: 0, settled: pause.promise }))
  const deleted = operations.exclusiveInTurn('a', 'delete', async () => {
    order.push('delete')
    return { resource: 0, settled: Promise.resolve(0) }
  })
  order.push('fail')
  pause.reject(new Error('disk full'))
  await assert.rejects(paused.settled)
  await (await deleted).settled
  assert.deepEqual(order, ['fail', 'delete'])
})

test('passing operations queue, and a changing one waits for them', async () => {
  const operations = new Operations()
  const order: number[] = []
  const gate = Promise.withResolvers<void>()
  const first = operations.passing('a', 'snapshot', async () => {
    await gate.promise
    order.push(1)
  })
  const second = operations.passing('a', 'snapshot', async () => order.push(2))
  const third = operations.exclusive('a', 'pause', async () => {
    order.push(3)
    return { resource: 0, settled: Promise.resolve(0) }
  })
  gate.resolve()
  await Promise.all([first, second, (await third).settled])
  assert.deepEqual(order, [1, 2, 3])
})

test('what follows from settled operations is waited for by nobody but idle', async () => {
  const operations = new Operations()
  const tidying = Promise.withResolvers<void>()
  operations.afterwards(tidying.promise)
  assert.equal(operations.isBusy('a'), false)
  let idle = false
  const waiting = operations.idle().then(() => {
    idle = true
  })
  const { settled } = await operations.exclusive('a', 'pause', async () => ({
    resource: 1,
    settled: Promise.resolve(2),
  }))
  await settled
  await new Promise((resolve) => setImmediate(resolve))
  assert.equal(idle, false)
  tidying.resolve()
  await waiting
})

test('work that follows and fails ends nothing but itself', async () => {
  const operations = new Operations()
  const { promise, reject } = Promise.withResolvers<void>()
  operations.afterwards(promise)
  const idle = operations.idle()
  reject(new Error('the disk is gone'))
  await idle
  // A rejection that nobody handles is told before the next turn of the loop, and would fail this test.
  await new Promise((resolve) => setImmediate(resolve))
})
