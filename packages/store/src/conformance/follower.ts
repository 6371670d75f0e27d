import { isDeepStrictEqual } from 'node:util'
import { code, type StoreUnderTest, type Template } from './template.ts'

/** A consumer as all are: lists, watches, and does so again when the watch expires. */
export function follow({ store, namespace }: StoreUnderTest, outer: AbortSignal) {
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
