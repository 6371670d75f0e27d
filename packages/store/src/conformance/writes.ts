import assert from 'node:assert/strict'
import { isError } from '@icebox/model'
import { isNewer, MAX_RESOURCE_BYTES } from '../store.ts'
import { code, type OpenStore, put, READY, SPEC, STATUS, type Template, testOn } from './template.ts'

/** Create, get, update, delete. */
export function testWrites(open: OpenStore): void {
  const test = testOn.bind(undefined, open)

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

  test('each write of a resource gives it a newer version', async (under, signal) => {
    const { store } = under
    let present = await put(under, signal)
    for (let count = 0; count < 12; count++) {
      const next = await store.updateSpec('Template', present, { spec: { ...SPEC, image: `x${count}` } }, signal)
      assert.ok(isNewer(next.metadata.resourceVersion, present.metadata.resourceVersion))
      assert.ok(!isNewer(present.metadata.resourceVersion, next.metadata.resourceVersion))
      present = next
    }
    await store.delete('Template', present, signal)
    const again = await put(under, signal)
    assert.ok(isNewer(again.metadata.resourceVersion, present.metadata.resourceVersion))
  })

  test('refuses a resource that is too large, and leaves the present one', async (under, signal) => {
    const { store, namespace } = under
    const large = { ...SPEC, env: { A: 'é'.repeat(MAX_RESOURCE_BYTES / 2) } }
    const key = { namespace, name: 'large' }
    await assert.rejects(store.create('Template', key, { spec: large, status: STATUS }, signal), code('TooLarge'))
    await assert.rejects(store.get('Template', key, signal), code('NotFound'))
    const one = await put(under, signal)
    await assert.rejects(store.updateSpec('Template', one, { spec: large }, signal), code('TooLarge'))
    assert.deepEqual(await store.get('Template', { namespace, name: 'one' }, signal), one)
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
}
