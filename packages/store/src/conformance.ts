import assert from 'node:assert/strict'
import { describe, it, type TestContext } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import { type ErrorCode, isError, type ResourceOf, type SpecOf, type StatusOf } from '@icebox/model'
import fc from 'fast-check'
import type { ResourceStore } from './store.ts'

/** A store and two namespaces in it that are empty and nobody else's. */
export interface StoreUnderTest {
  store: ResourceStore
  namespace: string
  other: string
}

type Template = ResourceOf['Template']
type TemplateSpec = SpecOf<'Template'>
type TemplateStatus = StatusOf<'Template'>

const SPEC: TemplateSpec = {
  image: 'debian:bookworm',
  size: { cpu: 1.5, memoryMiB: 512, diskMiB: 1024 },
  env: { LANG: 'C.UTF-8', EMPTY: '', GREETING: 'grüß "dich" \n 🧊' },
  startCommand: ['/bin/sh', '-c', 'true'],
  hidden: false,
}
const STATUS: TemplateStatus = { state: 'creating', lastTransitionAt: '2026-01-02T03:04:05.678Z' }
const READY: TemplateStatus = { ...STATUS, state: 'ready', snapshot: 'abc', bootMs: 12.5 }

const code = (expected: ErrorCode) => (thrown: unknown) => {
  assert.ok(isError(thrown, expected), `expected ${expected}, got ${String(thrown)}`)
  return true
}

/**
 * What every ResourceStore promises, and no more: versions are opaque, watches may coalesce and may expire at any time,
 * continue tokens may expire, lists have no order. `open` gives each test a store of its own.
 */
export function testResourceStore(name: string, open: (t: TestContext) => Promise<StoreUnderTest>): void {
  const test = (title: string, body: (under: StoreUnderTest, signal: AbortSignal) => Promise<void>) =>
    it(title, async (t) => body(await open(t), t.signal))
  const put = ({ store, namespace }: StoreUnderTest, signal: AbortSignal, name = 'one', metadata = {}) =>
    store.create('Template', { namespace, name }, { spec: SPEC, status: STATUS, metadata }, signal)

  describe(`${name} as a ResourceStore`, () => {
    test('gives back what was created', async (under, signal) => {
      const { store, namespace } = under
      const metadata = {
        labels: { app: 'x' },
        annotations: { 'icebox.dev/why': 'because' },
        finalizers: ['icebox.dev/f'],
      }
      const created = await put(under, signal, 'one', metadata)
      assert.equal(created.kind, 'Template')
      assert.deepEqual(created.spec, SPEC)
      assert.deepEqual(created.status, STATUS)
      assert.equal(created.metadata.namespace, namespace)
      assert.equal(created.metadata.name, 'one')
      assert.equal(created.metadata.generation, 1)
      assert.equal(created.metadata.deletionRequestedAt, undefined)
      assert.ok(Math.abs(Date.parse(created.metadata.createdAt) - Date.now()) < 600_000)
      assert.deepEqual(created.metadata.labels, metadata.labels)
      assert.deepEqual(created.metadata.annotations, metadata.annotations)
      assert.deepEqual(created.metadata.finalizers, metadata.finalizers)
      assert.deepEqual(await store.get('Template', { namespace, name: 'one' }, signal), created)
    })

    test('keeps names apart by kind and namespace', async (under, signal) => {
      const { store, namespace, other } = under
      const one = await put(under, signal)
      await assert.rejects(put(under, signal), code('AlreadyExists'))
      const two = await put({ ...under, namespace: other }, signal)
      assert.notEqual(one.metadata.uid, two.metadata.uid)
      await assert.rejects(store.get('Image', { namespace, name: 'one' }, signal), code('NotFound'))
      await store.delete('Template', two, signal)
      assert.deepEqual(await store.get('Template', { namespace, name: 'one' }, signal), one)
    })

    test('answers NotFound for what is not there', async (under, signal) => {
      const { store, namespace } = under
      const one = await put(under, signal)
      await store.delete('Template', one, signal)
      await assert.rejects(store.get('Template', { namespace, name: 'one' }, signal), code('NotFound'))
      await assert.rejects(store.updateStatus('Template', one, READY, signal), code('NotFound'))
      await assert.rejects(store.updateSpec('Template', one, { spec: SPEC }, signal), code('NotFound'))
      await assert.rejects(store.delete('Template', one, signal), code('NotFound'))
    })

    test('refuses what does not fit, and changes nothing', async (under, signal) => {
      const { store, namespace } = under
      const bad = { ...SPEC, size: { ...SPEC.size, memoryMiB: -1 } }
      const create = (name: string, content: object) =>
        store.create('Template', { namespace, name }, { spec: SPEC, status: STATUS, ...content }, signal)
      await assert.rejects(create('a', { spec: bad }), (thrown) => {
        assert.ok(isError(thrown, 'InvalidArgument'))
        return assert.match(thrown.message, /memoryMiB/) === undefined
      })
      await assert.rejects(create('a', { status: { state: 'nonsense' } }), code('InvalidArgument'))
      await assert.rejects(create('a', { metadata: { labels: { 'a b': 'x' } } }), code('InvalidArgument'))
      await assert.rejects(create('a', { metadata: { labels: { a: 'x'.repeat(64) } } }), code('InvalidArgument'))
      await assert.rejects(create('a', { metadata: { finalizers: ['no-prefix'] } }), code('InvalidArgument'))
      for (const name of ['', 'A', 'a/b', 'a_b', '-a', 'a'.repeat(254), '..', 'a..b'])
        await assert.rejects(create(name, {}), code('InvalidArgument'), name)
      assert.deepEqual((await store.list('Template', namespace, {}, signal)).items, [])

      const one = await put(under, signal)
      await assert.rejects(store.updateSpec('Template', one, { spec: bad }, signal), code('InvalidArgument'))
      const status = { ...STATUS, bootMs: 'long' as unknown as number }
      await assert.rejects(store.updateStatus('Template', one, status, signal), code('InvalidArgument'))
      assert.deepEqual(await store.get('Template', one.metadata, signal), one)
    })

    test('updates spec and metadata without status; generation follows spec alone', async (under, signal) => {
      const { store } = under
      const one = await put(under, signal, 'one', { labels: { a: '1' }, annotations: { b: '2' } })
      const spec = { ...SPEC, image: 'debian:trixie' }
      const two = await store.updateSpec('Template', one, { spec }, signal)
      assert.deepEqual(two.spec, spec)
      assert.deepEqual(two.status, STATUS)
      assert.equal(two.metadata.generation, 2)
      assert.equal(two.metadata.uid, one.metadata.uid)
      assert.notEqual(two.metadata.resourceVersion, one.metadata.resourceVersion)
      assert.deepEqual(two.metadata.labels, { a: '1' })

      const three = await store.updateSpec('Template', two, { metadata: { labels: { c: '3' } } }, signal)
      assert.equal(three.metadata.generation, 2)
      assert.deepEqual(three.metadata.labels, { c: '3' })
      assert.deepEqual(three.metadata.annotations, { b: '2' })
      assert.deepEqual(three.spec, spec)

      const same = await store.updateSpec('Template', three, { spec: structuredClone(spec) }, signal)
      assert.equal(same.metadata.generation, 2)
      assert.deepEqual(await store.get('Template', one.metadata, signal), same)
    })

    test('replaces an optional field that is left out', async (under, signal) => {
      const { store } = under
      const one = await put(under, signal)
      const { startCommand: _, ...spec } = SPEC
      const two = await store.updateSpec('Template', one, { spec }, signal)
      assert.equal('startCommand' in two.spec, false)
      const ready = await store.updateStatus('Template', two, READY, signal)
      const back = await store.updateStatus('Template', ready, STATUS, signal)
      assert.deepEqual(back.status, STATUS)
    })

    test('updates status without spec, metadata or generation', async (under, signal) => {
      const { store } = under
      const one = await put(under, signal, 'one', { labels: { a: '1' } })
      const tampered: Template = {
        ...one,
        spec: { ...SPEC, image: 'other' },
        metadata: { ...one.metadata, labels: {} },
      }
      const two = await store.updateStatus('Template', tampered, READY, signal)
      assert.deepEqual(two.status, READY)
      assert.deepEqual(two.spec, SPEC)
      const { resourceVersion: before, ...metadata } = one.metadata
      const { resourceVersion: after, ...unchanged } = two.metadata
      assert.notEqual(after, before)
      assert.deepEqual(unchanged, metadata)
    })

    test('refuses writes on an old version', async (under, signal) => {
      const { store } = under
      const one = await put(under, signal)
      const two = await store.updateStatus('Template', one, READY, signal)
      await assert.rejects(store.updateStatus('Template', one, STATUS, signal), code('StaleWrite'))
      const spec = { ...SPEC, image: 'x' }
      await assert.rejects(store.updateSpec('Template', one, { spec }, signal), code('StaleWrite'))
      assert.deepEqual(await store.get('Template', one.metadata, signal), two)
    })

    test('refuses writes and deletes meant for an earlier resource of that name', async (under, signal) => {
      const { store } = under
      const old = await put(under, signal)
      await store.delete('Template', old, signal)
      const young = await put(under, signal)
      assert.notEqual(young.metadata.uid, old.metadata.uid)
      await assert.rejects(store.delete('Template', old, signal), code('StaleWrite'))
      await assert.rejects(store.updateStatus('Template', old, READY, signal), code('StaleWrite'))
      await assert.rejects(store.updateSpec('Template', old, { spec: SPEC }, signal), code('StaleWrite'))
      assert.deepEqual(await store.get('Template', old.metadata, signal), young)
    })

    test('lets exactly one of several writers of one version win', async (under, signal) => {
      const { store } = under
      const one = await put(under, signal)
      const writers = Array.from({ length: 8 }, (_, bootMs) =>
        store.updateStatus('Template', one, { ...STATUS, bootMs: bootMs + 1 }, signal),
      )
      const results = await Promise.allSettled(writers)
      const won = results.filter((result) => result.status === 'fulfilled')
      assert.equal(won.length, 1)
      for (const result of results) if (result.status === 'rejected') code('StaleWrite')(result.reason)
      assert.deepEqual(await store.get('Template', one.metadata, signal), won[0]?.value)
    })

    test('loses no increment of writers that read again and retry', async (under, signal) => {
      const { store } = under
      const one = await put(under, signal)
      const increment = async (): Promise<void> => {
        const read = await store.get('Template', one.metadata, signal)
        try {
          await store.updateStatus('Template', read, { ...STATUS, bootMs: (read.status.bootMs ?? 0) + 1 }, signal)
        } catch (thrown) {
          code('StaleWrite')(thrown)
          return increment()
        }
      }
      await Promise.all(Array.from({ length: 10 }, increment))
      assert.equal((await store.get('Template', one.metadata, signal)).status.bootMs, 10)
    })

    test('keeps a deleted resource until its last finalizer is gone', async (under, signal) => {
      const { store } = under
      const finalizers = ['icebox.dev/a', 'icebox.dev/b']
      const one = await put(under, signal, 'one', { finalizers })
      await store.delete('Template', one, signal)
      const marked = await store.get('Template', one.metadata, signal)
      assert.ok(marked.metadata.deletionRequestedAt)
      assert.deepEqual(marked.metadata.finalizers, finalizers)
      await store.delete('Template', marked, signal)
      const again = await store.get('Template', one.metadata, signal)
      assert.equal(again.metadata.deletionRequestedAt, marked.metadata.deletionRequestedAt)
      await assert.rejects(put(under, signal), code('AlreadyExists'))

      const more = { metadata: { finalizers: [...finalizers, 'icebox.dev/c'] } }
      await assert.rejects(store.updateSpec('Template', again, more, signal), code('InvalidArgument'))
      const working = await store.updateStatus('Template', again, { ...STATUS, state: 'deleting' }, signal)
      const half = await store.updateSpec('Template', working, { metadata: { finalizers: ['icebox.dev/b'] } }, signal)
      assert.deepEqual((await store.get('Template', one.metadata, signal)).metadata.finalizers, ['icebox.dev/b'])
      await store.updateSpec('Template', half, { metadata: { finalizers: [] } }, signal)
      await assert.rejects(store.get('Template', one.metadata, signal), code('NotFound'))
      await put(under, signal)
    })

    test('does not delete when finalizers of a living resource are removed', async (under, signal) => {
      const { store } = under
      const one = await put(under, signal, 'one', { finalizers: ['icebox.dev/a'] })
      const free = await store.updateSpec('Template', one, { metadata: { finalizers: [] } }, signal)
      assert.deepEqual(await store.get('Template', one.metadata, signal), free)
    })

    test('lists by kind, namespace and labels', async (under, signal) => {
      const { store, namespace, other } = under
      await put(under, signal, 'a', { labels: { tier: 'x', zone: '1' } })
      await put(under, signal, 'b', { labels: { tier: 'x', zone: '2' } })
      await put(under, signal, 'c', { labels: { tier: 'y' } })
      await put({ ...under, namespace: other }, signal, 'd', { labels: { tier: 'x' } })
      const names = async (labels?: Record<string, string>) => {
        const list = await store.list('Template', namespace, labels ? { labels } : {}, signal)
        assert.equal(list.continue, undefined)
        return list.items.map((item) => item.metadata.name).sort()
      }
      assert.deepEqual(await names(), ['a', 'b', 'c'])
      assert.deepEqual(await names({ tier: 'x' }), ['a', 'b'])
      assert.deepEqual(await names({ tier: 'x', zone: '2' }), ['b'])
      assert.deepEqual(await names({ tier: 'z' }), [])
      assert.deepEqual((await store.list('Image', namespace, {}, signal)).items, [])
    })

    test('lists page by page', async (under, signal) => {
      const { store, namespace } = under
      const created = new Map<string, Template>()
      for (const name of ['a', 'b', 'c', 'd', 'e', 'f', 'g'])
        created.set(name, await put(under, signal, name, { labels: { odd: String(created.size % 2) } }))
      for (const labels of [{}, { odd: '0' }])
        for (const limit of [1, 2, 3, 7, 100]) {
          const found = await allPages(under, { labels, limit }, signal)
          const wanted = [...created.values()].filter((item) => !('odd' in labels) || item.metadata.labels.odd === '0')
          assert.deepEqual(found.sort(byName), wanted.sort(byName))
        }
      await assert.rejects(
        store.list('Template', namespace, { limit: 1, continue: '?' }, signal),
        code('InvalidArgument'),
      )
    })

    test('shows what exists throughout exactly once while others come and go between pages', async (under, signal) => {
      const { store } = under
      const stay = ['b', 'd', 'f', 'h', 'j']
      for (const name of [...stay, 'a', 'e', 'i']) await put(under, signal, name)
      const changes = [
        async () => store.delete('Template', await store.get('Template', { ...under, name: 'a' }, signal), signal),
        () => put(under, signal, 'c'),
        async () => store.delete('Template', await store.get('Template', { ...under, name: 'e' }, signal), signal),
        () => put(under, signal, 'a'),
        () => put(under, signal, 'g'),
        async () => store.delete('Template', await store.get('Template', { ...under, name: 'i' }, signal), signal),
      ]
      const found = await allPages(under, { limit: 1 }, signal, async () => {
        await changes.shift()?.()
      })
      const names = found.map((item) => item.metadata.name)
      for (const name of stay) assert.equal(names.filter((each) => each === name).length, 1, name)
      assert.equal(new Set(names).size, names.length)
    })

    test('a watch brings a follower to the state of the store', async (under, signal) => {
      const one = await put(under, signal, 'one')
      const { store } = under
      await using follower = follow(under, signal)
      await follower.reached(signal)
      const two = await store.updateStatus('Template', one, READY, signal)
      await put(under, signal, 'two')
      await follower.reached(signal)
      await store.delete('Template', two, signal)
      await follower.reached(signal)
      const again = await put(under, signal, 'one')
      await follower.reached(signal)
      assert.equal(follower.seen.get('one')?.metadata.uid, again.metadata.uid)
    })

    test('a watch says nothing of other kinds and namespaces', async (under, signal) => {
      await using follower = follow(under, signal)
      const { store, namespace, other } = under
      await put({ ...under, namespace: other }, signal, 'elsewhere')
      const image = { reference: 'x', digest: 'sha256:0' }
      const config = { env: {}, workingDir: '/', user: '', entrypoint: [], cmd: [] }
      const status = { ...STATUS, config, sizeBytes: 1 }
      await store.create('Image', { namespace, name: 'picture' }, { spec: image, status }, signal)
      await put(under, signal, 'mine')
      await follower.reached(signal)
      assert.deepEqual(follower.names, new Set(['mine']))
    })

    test('a watch from a list misses nothing, whenever it starts', async (under, signal) => {
      const { store, namespace } = under
      const one = await put(under, signal)
      const { resourceVersion } = await store.list('Template', namespace, {}, signal)
      await store.updateStatus('Template', one, READY, signal)
      await put(under, signal, 'two')
      const stop = new AbortController()
      const seen = new Map<string, Template>()
      try {
        for await (const event of store.watch('Template', namespace, resourceVersion, stop.signal)) {
          seen.set(event.resource.metadata.name, event.resource)
          if (seen.size === 2 && seen.get('one')?.status.state === 'ready') break
        }
      } catch (thrown) {
        code('WatchExpired')(thrown)
      }
      stop.abort()
    })

    test('a watch ends when its signal aborts, waiting or not', async (under, signal) => {
      const { store, namespace } = under
      const { resourceVersion } = await store.list('Template', namespace, {}, signal)
      for (const change of [false, true]) {
        const stop = new AbortController()
        const watching = (async () => {
          for await (const _ of store.watch('Template', namespace, resourceVersion, stop.signal)) stop.abort()
        })()
        if (change) await put(under, signal)
        else setImmediate(() => stop.abort())
        await watching
      }
    })

    test('does nothing once the signal has aborted', async (under, signal) => {
      const { store, namespace } = under
      await assert.rejects(put(under, AbortSignal.abort()), code('DeadlineExceeded'))
      const one = await put(under, signal)
      await assert.rejects(store.updateStatus('Template', one, READY, AbortSignal.abort()), code('DeadlineExceeded'))
      await assert.rejects(store.delete('Template', one, AbortSignal.abort()), code('DeadlineExceeded'))
      assert.deepEqual((await store.list('Template', namespace, {}, signal)).items, [one])
    })

    test('gives out copies', async (under, signal) => {
      const { store } = under
      const spec = structuredClone(SPEC)
      const one = await store.create('Template', { ...under, name: 'one' }, { spec, status: STATUS }, signal)
      spec.env.LATER = '1'
      one.spec.env.LATER = '1'
      const read = await store.get('Template', one.metadata, signal)
      assert.deepEqual(read.spec, SPEC)
      read.spec.env.LATER = '1'
      assert.deepEqual((await store.get('Template', one.metadata, signal)).spec, SPEC)
    })

    it('behaves like a map with versions, whatever is done to it, and a follower ends up with the same', async (t) => {
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

const byName = (a: Template, b: Template) => a.metadata.name.localeCompare(b.metadata.name)

/** Reads all pages; a token that expires starts the list again. */
async function allPages(
  { store, namespace }: StoreUnderTest,
  options: { labels?: Record<string, string>; limit: number },
  signal: AbortSignal,
  between: () => Promise<void> = async () => {},
): Promise<Template[]> {
  const items: Template[] = []
  let token: string | undefined
  do {
    try {
      const page = await store.list('Template', namespace, token ? { ...options, continue: token } : options, signal)
      assert.ok(page.items.length <= options.limit)
      items.push(...page.items)
      token = page.continue
    } catch (thrown) {
      code('WatchExpired')(thrown)
      items.length = 0
      token = undefined
    }
    await between()
  } while (token)
  return items
}

/** A consumer as all are: lists, watches, and does so again when the watch expires. */
function follow({ store, namespace }: StoreUnderTest, outer: AbortSignal) {
  const stop = new AbortController()
  const signal = AbortSignal.any([outer, stop.signal])
  const seen = new Map<string, Template>()
  const names = new Set<string>()
  let failure: unknown
  let notify = () => {}
  const loop = async () => {
    while (!signal.aborted) {
      const list = await store.list('Template', namespace, {}, signal)
      seen.clear()
      for (const item of list.items) seen.set(item.metadata.name, item)
      notify()
      try {
        for await (const { type, resource } of store.watch('Template', namespace, list.resourceVersion, signal)) {
          names.add(resource.metadata.name)
          if (type === 'put') seen.set(resource.metadata.name, resource)
          else if (seen.get(resource.metadata.name)?.metadata.uid === resource.metadata.uid)
            seen.delete(resource.metadata.name)
          notify()
        }
      } catch (thrown) {
        code('WatchExpired')(thrown)
      }
    }
  }
  const running = loop().catch((thrown: unknown) => {
    if (!signal.aborted) failure = thrown
    notify()
  })
  return {
    seen,
    /** Names of which the watch said something. */
    names,
    /** Resolves when the follower has what the store has now. Without end when it never does: the test's own limit ends it. */
    async reached(waiting: AbortSignal): Promise<void> {
      const { items } = await store.list('Template', namespace, {}, waiting)
      const wanted = new Map(items.map((item) => [item.metadata.name, item]))
      while (!isDeepStrictEqual(seen, wanted)) {
        if (failure) throw failure
        waiting.throwIfAborted()
        await new Promise<void>((resolve) => {
          notify = resolve
          waiting.addEventListener('abort', () => resolve(), { once: true })
        })
      }
    },
    async [Symbol.asyncDispose](): Promise<void> {
      stop.abort()
      await running
    },
  }
}
