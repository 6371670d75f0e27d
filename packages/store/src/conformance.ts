import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { follow } from './conformance/follower.ts'
import { testLists } from './conformance/lists.ts'
import { byName, code, type OpenStore, put, STATUS, type Template, TIMEOUT_MS } from './conformance/template.ts'
import { testWatches } from './conformance/watches.ts'
import { testWrites } from './conformance/writes.ts'

/**
 * What every ResourceStore promises, and no more: versions are opaque, watches may coalesce and may expire at any time,
 * continue tokens may expire, lists have no order.
 */
export function testResourceStore(name: string, open: OpenStore): void {
  describe(`${name} as a ResourceStore`, () => {
    testWrites(open)
    testLists(open)
    testWatches(open)

    it('behaves like a map with versions, whatever is done to it, and a follower ends up with the same', {
      timeout: TIMEOUT_MS,
    }, async (t) => {
      const step = fc.record({
        name: fc.constantFrom('a', 'b', 'c', 'd'),
        verb: fc.constantFrom('create', 'spec', 'status', 'stale', 'delete', 'finalize'),
        value: fc.integer({ min: 1, max: 99 }),
      })
      const run = async (steps: { name: string; verb: string; value: number }[]) => {
        const under = await open(t)
        const { store, namespace } = under
        await using follower = follow(under, t.signal)
        const model = new Map<string, Template>()
        for (const { name, verb, value } of steps) {
          const known = model.get(name)
          if (!known) {
            const metadata = value % 2 ? { finalizers: ['icebox.dev/f'] } : {}
            model.set(name, await put(under, t.signal, name, metadata))
            continue
          }
          if (verb === 'create') await assert.rejects(put(under, t.signal, name), code('AlreadyExists'))
          else if (verb === 'spec') {
            const spec = { ...known.spec, image: `image-${value}` }
            const next = await store.updateSpec('Template', known, { spec }, t.signal)
            assert.equal(next.metadata.generation - known.metadata.generation, spec.image === known.spec.image ? 0 : 1)
            model.set(name, next)
          } else if (verb === 'status')
            model.set(name, await store.updateStatus('Template', known, { ...STATUS, bootMs: value }, t.signal))
          else if (verb === 'stale') {
            const next = await store.updateStatus('Template', known, { ...STATUS, bootMs: value + 100.5 }, t.signal)
            model.set(name, next)
            const old = store.updateSpec('Template', known, { metadata: { labels: { x: 'y' } } }, t.signal)
            await assert.rejects(old, code('StaleWrite'))
          } else if (verb === 'delete') {
            await store.delete('Template', known, t.signal)
            if (known.metadata.finalizers.length === 0) model.delete(name)
            else model.set(name, await store.get('Template', known.metadata, t.signal))
          } else {
            const next = await store.updateSpec('Template', known, { metadata: { finalizers: [] } }, t.signal)
            if (known.metadata.deletionRequestedAt) model.delete(name)
            else model.set(name, next)
          }
        }
        const list = await store.list('Template', namespace, {}, t.signal)
        assert.deepEqual(list.items.sort(byName), [...model.values()].sort(byName))
        await follower.reached(t.signal)
      }
      await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 40 }), run), { numRuns: 15 })
    })
  })
}
