import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { Alarm } from './alarm.ts'

const soon = (milliseconds: number) => new Date(Date.now() + milliseconds).toISOString()

/** Looks at these times; those that are over are taken out. */
function watched(times: Set<string>) {
  const rung = new Set<string>()
  let looks = 0
  const stopping = new AbortController()
  const look = async () => {
    looks += 1
    const present = [...times]
    await sleep(5)
    for (const time of present) if (Date.parse(time) <= Date.now() && times.delete(time)) rung.add(time)
    const left = present.filter((time) => times.has(time)).map((time) => Date.parse(time))
    return left.length === 0 ? undefined : Math.min(...left)
  }
  const alarm = new Alarm(look, () => {}, stopping.signal)
  const until = async (count: number) => {
    while (rung.size < count) await sleep(5)
  }
  return { alarm, until, stop: () => stopping.abort(), looks: () => looks }
}

describe('alarm', { timeout: 30_000 }, () => {
  test('rings for times set in any order, also while it looks, and without looking at each', async () => {
    const times = new Set<string>()
    const { alarm, until, looks, stop } = watched(times)
    alarm.changed()
    for (let each = 0; each < 500; each += 1) {
      const time = soon(1000 - each)
      times.add(time)
      alarm.at(time)
    }
    const count = times.size
    assert.ok(looks() <= 2, `${looks()} looks for 500 times`)
    await until(count)
    stop()
  })

  test('those who ask during a look share the next', async () => {
    const { alarm, looks, stop } = watched(new Set())
    for (let each = 0; each < 100; each += 1) alarm.changed()
    await sleep(100)
    assert.equal(looks(), 2)
    stop()
  })

  test('a look that fails is made again', async (context) => {
    context.mock.timers.enable({ apis: ['setTimeout'] })
    const stopping = new AbortController()
    const looked = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    let looks = 0
    const look = async () => {
      looked[looks]?.resolve()
      looks += 1
      if (looks === 1) throw new Error('the disk is gone')
      return undefined
    }
    const failed = Promise.withResolvers<void>()
    const alarm = new Alarm(look, () => failed.resolve(), stopping.signal)
    alarm.changed()
    await failed.promise
    await Promise.resolve()
    context.mock.timers.tick(5_000)
    await looked[1]?.promise
    stopping.abort()
  })

  test('a time that a jump of the clock has brought near is met within a minute', async (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] })
    let now = Date.parse('2026-01-01T00:00:00Z')
    t.mock.method(Date, 'now', () => now)
    const due = now + 3_600_000
    let looks = 0
    const looked = () => new Promise((resolve) => setImmediate(resolve))
    const stopping = new AbortController()
    const alarm = new Alarm(
      async () => {
        looks += 1
        return Date.now() < due ? due : undefined
      },
      () => undefined,
      stopping.signal,
    )
    alarm.changed()
    await looked()
    assert.equal(looks, 1)
    now = due
    t.mock.timers.tick(60_000)
    await looked()
    assert.equal(looks, 2)
    stopping.abort()
  })
})
