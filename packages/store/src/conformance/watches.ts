import assert from 'node:assert/strict'
import { follow } from './follower.ts'
import { code, type OpenStore, put, READY, STATUS, type Template, testOn } from './template.ts'

/** Watch, as its consumers use it. */
export function testWatches(open: OpenStore): void {
  const test = testOn.bind(undefined, open)

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

  test('a watch of all namespaces tells the changes of each', async (under, signal) => {
    const { store, namespace, other } = under
    const { resourceVersion } = await store.list('Template', undefined, { limit: 1 }, signal)
    const mine = await put(under, signal, 'mine')
    const theirs = await put({ ...under, namespace: other }, signal, 'theirs')
    await store.delete('Template', mine, signal)
    const seen = new Map<string, string>()
    for await (const { type, resource } of store.watch('Template', undefined, resourceVersion, signal)) {
      seen.set(`${resource.metadata.namespace}/${resource.metadata.name}`, type)
      if (seen.get(`${namespace}/mine`) === 'delete' && seen.has(`${other}/theirs`)) break
    }
    assert.equal(seen.get(`${other}/${theirs.metadata.name}`), 'put')
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
}
