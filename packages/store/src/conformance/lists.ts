import assert from 'node:assert/strict'
import { byName, code, type OpenStore, put, type StoreUnderTest, type Template, testOn } from './template.ts'

/** List and its pages. */
export function testLists(open: OpenStore): void {
  const test = testOn.bind(undefined, open)

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

  test('lists all namespaces at once, page by page, too', async (under, signal) => {
    const { store, namespace, other } = under
    for (const [at, name] of [
      [namespace, 'a'],
      [namespace, 'b'],
      [other, 'a'],
      [other, 'c'],
    ] as const)
      await put({ ...under, namespace: at }, signal, name)
    for (const limit of [1, 2, 3, 100]) {
      const found: string[] = []
      let token: string | undefined
      do {
        const list = await store.list('Template', undefined, token ? { limit, continue: token } : { limit }, signal)
        found.push(...list.items.map(({ metadata }) => `${metadata.namespace}/${metadata.name}`))
        token = list.continue
      } while (token)
      const ours = found.filter((each) => each.startsWith(`${namespace}/`) || each.startsWith(`${other}/`))
      assert.deepEqual(ours.sort(), [`${namespace}/a`, `${namespace}/b`, `${other}/a`, `${other}/c`].sort())
    }
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
}

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
