import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type Grower, Paces, planGrowth } from './growth.ts'

const MIB = 2 ** 20
const grower = (execution: string, rate: number, pauseBytes = 100 * MIB): Grower => ({
  execution,
  diskBytes: pauseBytes,
  rate,
  pauseBytes,
})

test('where there is room for long, or nothing grows, nothing is done', () => {
  assert.equal(planGrowth({ freeBytes: 10_000 * MIB, reserveBytes: 100 * MIB }, [grower('a', 10 * MIB)]), undefined)
  assert.equal(planGrowth({ freeBytes: 0, reserveBytes: 100 * MIB }, [grower('a', 0), grower('b', 100)]), undefined)
})

test('the fastest is paused while there is just room for its save, and held when there is none', () => {
  const machines = [grower('slow', MIB), grower('fast', 20 * MIB)]
  const room = (freeBytes: number, reserveBytes: number) => ({ freeBytes, reserveBytes })
  assert.deepEqual(planGrowth(room(110 * MIB, 50 * MIB), machines), { do: 'pause', execution: 'fast' })
  assert.deepEqual(planGrowth(room(60 * MIB, 50 * MIB), machines), { do: 'pause', execution: 'fast' })
  assert.deepEqual(planGrowth(room(15 * MIB, 50 * MIB), machines), { do: 'hold', execution: 'fast' })
})

test('before the disk is full one is stopped, until none grows', () => {
  const machine = fc.record({
    execution: fc.uuid(),
    diskBytes: fc.integer({ min: 0, max: 2 ** 40 }),
    rate: fc.double({ min: 0, max: 2 ** 32, noNaN: true }),
    pauseBytes: fc.integer({ min: 0, max: 2 ** 40 }),
  })
  const machines = fc.uniqueArray(machine, { selector: ({ execution }) => execution, maxLength: 30 })
  const freeBytes = fc.integer({ min: -(2 ** 32), max: 2 ** 34 })
  fc.assert(
    fc.property(machines, freeBytes, fc.integer({ min: 0, max: 2 ** 32 }), (all, free, reserveBytes) => {
      let left = all
      for (;;) {
        const measure = planGrowth({ freeBytes: free, reserveBytes }, left)
        if (measure === undefined) break
        const stopped = left.find(({ execution }) => execution === measure.execution)
        assert.ok(stopped !== undefined && left.every(({ rate }) => rate <= stopped.rate), 'another one grows faster')
        if (measure.do === 'pause') assert.ok(stopped.pauseBytes <= free + reserveBytes)
        left = left.filter((each) => each !== stopped)
      }
      // What still grows leaves time to look again.
      const rest = left.filter(({ rate }) => rate >= 65_536).reduce((sum, { rate }) => sum + rate, 0)
      assert.ok(rest === 0 || free >= rest, `${rest} bytes a second into ${free}`)
    }),
  )
})

test('a pace is of what grows all through a second', () => {
  const paces = new Paces()
  const after = (sizes: number[]) => {
    paces.forget()
    return sizes.map((size, i) => paces.sample(new Map([['a', size]]), i * 250).get('a'))
  }
  assert.deepEqual(after([0, 25, 50, 75, 100, 125]), [undefined, undefined, undefined, undefined, 100, 100])
  // Whatever comes at once and is over.
  assert.deepEqual(after([0, 0, 0, 0, 1000, 1000, 1000, 1000]).filter(Boolean), [])
  // A writer that pauses for a moment.
  assert.ok((after([0, 50, 50, 100, 100, 150]).at(-1) ?? 0) > 0)
  paces.sample(new Map(), 4000)
  assert.equal(paces.sample(new Map([['a', 20_000]]), 5000).get('a'), undefined)
})
