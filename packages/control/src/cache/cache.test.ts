import assert from 'node:assert/strict'
import { type TestContext, test } from 'node:test'
import { newSandboxId, type Sandbox } from '@icebox/model'
import type { ResourceStore } from '@icebox/store'
import fc from 'fast-check'
import { openTestStore, SPEC, statusOf } from '../testing.ts'
import { Cache, type Change } from './cache.ts'
import { pairOf, type SandboxSummary, summaryOf } from './summary.ts'

const PROJECTS = ['mine', 'theirs']
const NAMES = Array.from({ length: 6 }, newSandboxId)

/** Gives the others their turns until the condition holds. */
async function until(condition: () => Promise<boolean>, t: TestContext): Promise<void> {
  while (!(await condition())) {
    t.signal.throwIfAborted()
    await new Promise((resolve) => setImmediate(resolve))
  }
}

const everything = async (store: ResourceStore, signal: AbortSignal): Promise<SandboxSummary[]> =>
  (await store.list('Sandbox', undefined, {}, signal)).items.map((sandbox) => summaryOf('Sandbox', sandbox))

const byPlace = (a: SandboxSummary, b: SandboxSummary) =>
  `${a.namespace}/${a.name}` < `${b.namespace}/${b.name}` ? -1 : 1

const isKnown = async (cache: Cache, store: ResourceStore, signal: AbortSignal) =>
  JSON.stringify([...cache.each('Sandbox')].sort(byPlace)) ===
  JSON.stringify((await everything(store, signal)).sort(byPlace))

/** What the listeners make of the changes they are told. */
function follower(cache: Cache): Map<string, SandboxSummary> {
  const known = new Map<string, SandboxSummary>()
  cache.onChange(({ kind, before, after }: Change) => {
    if (kind !== 'Sandbox') return
    const place = ({ namespace, name }: { namespace: string; name: string }) => `${namespace}/${name}`
    if (before !== undefined) assert.equal(known.get(place(before))?.version, before.version)
    if (before !== undefined) known.delete(place(before))
    if (after?.kind === 'Sandbox') known.set(place(after), after)
  })
  return known
}

const step = fc.record({
  by: fc.constantFrom('us', 'others'),
  verb: fc.constantFrom('create', 'change', 'remove'),
  project: fc.constantFrom(...PROJECTS),
  name: fc.constantFrom(...NAMES),
})

test('whoever writes, what is known is what is written', async (t) => {
  const { store, cache, recordsOf } = await openTestStore(t)
  const followed = follower(cache)
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      let count = 0
      for (const { by, verb, project, name } of steps) {
        count += 1
        const key = { namespace: project, name }
        const present = await recordsOf(project).find('Sandbox', name)
        const state = count % 2 === 0 ? 'running' : 'failed'
        const status = statusOf(state)
        if (verb === 'create' && present === undefined) {
          if (by === 'us') await recordsOf(project).create('Sandbox', name, { spec: SPEC, status })
          else await store.create('Sandbox', key, { spec: SPEC, status }, t.signal)
        }
        if (verb === 'change' && present !== undefined) {
          const spec = { ...SPEC, metadata: { count: String(count) } }
          if (by === 'us') await recordsOf(project).setSpec('Sandbox', name, () => spec)
          else await store.updateSpec('Sandbox', present, { spec }, t.signal)
        }
        if (verb === 'remove' && present !== undefined) {
          if (by === 'us') await recordsOf(project).remove('Sandbox', name)
          else await store.delete('Sandbox', present, t.signal)
        }
        if (by === 'us') {
          const written = await recordsOf(project).find('Sandbox', name)
          const known = cache.of('Sandbox', project).first('name', name)
          assert.equal(known?.version, written?.metadata.resourceVersion, 'own writes are known at once')
        }
      }
      await until(() => isKnown(cache, store, t.signal), t)
      assert.deepEqual([...followed.values()].sort(byPlace), [...cache.each('Sandbox')].sort(byPlace))
    }),
    { numRuns: 30 },
  )
})

test('what was there before the cache, and what came while it fell behind, is known', async (t) => {
  const { store, recordsOf } = await openTestStore(t)
  const create = (name: string) =>
    recordsOf('mine').create('Sandbox', name, { spec: SPEC, status: statusOf('running') })
  const [first, second, third] = [newSandboxId(), newSandboxId(), newSandboxId()]
  await create(first)
  await create(second)
  const closing = new AbortController()
  t.after(() => closing.abort())
  const failures: string[] = []
  /** The watch of sandboxes tells nothing until then, and then that changes were missed. */
  const behind = Promise.withResolvers<void>()
  let watches = 0
  const forgetful: ResourceStore = {
    create: store.create.bind(store),
    get: store.get.bind(store),
    list: store.list.bind(store),
    updateSpec: store.updateSpec.bind(store),
    updateStatus: store.updateStatus.bind(store),
    delete: store.delete.bind(store),
    close: store.close.bind(store),
    async *watch(kind, namespace, from, signal) {
      const isFirst = kind === 'Sandbox' && watches++ === 0
      if (isFirst) await behind.promise
      yield* store.watch(kind, namespace, isFirst ? '999999999' : from, signal)
    },
  }
  const cache = await Cache.open(forgetful, (_level, event) => failures.push(event), closing.signal)
  const known = () => [...cache.each('Sandbox')].map(({ name }) => name).sort()
  assert.deepEqual(known(), [first, second].sort())
  await recordsOf('mine').remove('Sandbox', first)
  await create(third)
  assert.deepEqual(known(), [first, second].sort())
  behind.resolve()
  await until(async () => known().join() === [second, third].sort().join(), t)
  assert.deepEqual(failures, [])
  closing.abort()
  await cache.closed()
})

test('a write that was on its way when its resource was deleted brings nothing back', async (t) => {
  const { store, cache, recordsOf } = await openTestStore(t)
  const name = newSandboxId()
  const written = await recordsOf('mine').create('Sandbox', name, { spec: SPEC, status: statusOf('running') })
  await store.delete('Sandbox', written, t.signal)
  await until(async () => cache.all('Sandbox').size === 0, t)
  cache.put('Sandbox', written)
  cache.drop('Sandbox', written)
  cache.put('Sandbox', written)
  assert.equal(cache.all('Sandbox').size, 0)
})

test('sandboxes are found by what they stand on, are called and carry', async (t) => {
  const { cache, recordsOf } = await openTestStore(t)
  const create = (spec: Partial<Sandbox['spec']>, status: Partial<Sandbox['status']>) =>
    recordsOf('mine').create('Sandbox', newSandboxId(), {
      spec: { ...SPEC, ...spec },
      status: statusOf('paused', status),
    })
  const one = await create({ displayName: 'one', metadata: { a: '1', b: '2' } }, { pausedIn: 's1', execution: 'e1' })
  const two = await create({ metadata: { a: '1' } }, { lastSnapshot: 's1', imageName: 'i1' })
  const own = cache.of('Sandbox', 'mine')
  const names = (found: Iterable<SandboxSummary>) => [...found].map(({ name }) => name)
  assert.deepEqual(names(own.where('displayName', 'one')), [one.metadata.name])
  assert.deepEqual(names(own.where('metadata', pairOf('a', '1'))), [one.metadata.name, two.metadata.name])
  assert.deepEqual(names(own.where('holds', 's1')), [one.metadata.name])
  assert.deepEqual(names(own.where('lastSnapshot', 's1')), [two.metadata.name])
  assert.deepEqual(names(own.where('image', 'i1')), [two.metadata.name])
  assert.deepEqual(names(cache.all('Sandbox').where('execution', 'e1')), [one.metadata.name])
  assert.deepEqual(names(own.beginningWith(one.metadata.name.slice(0, 12))), [one.metadata.name])
  assert.deepEqual(names(own.beginningWith('')), [])
  assert.equal(cache.of('Sandbox', 'theirs').size, 0)
  await recordsOf('mine').setSpec('Sandbox', one.metadata.name, ({ spec }) => ({ ...spec, displayName: 'other' }))
  assert.deepEqual(names(own.where('displayName', 'one')), [])
})
