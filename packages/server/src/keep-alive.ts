export const KEEP_ALIVE = Symbol('keep-alive')

/** What the source gives, and a sign of life whenever it has given nothing for so long. Throws the signal's reason. */
export async function* withKeepAlive<T>(
  source: AsyncIterable<T>,
  milliseconds: number,
  signal: AbortSignal,
): AsyncGenerator<T | typeof KEEP_ALIVE, void, void> {
  const iterator = source[Symbol.asyncIterator]()
  let resolve: (next: IteratorResult<T> | typeof KEEP_ALIVE) => void = () => undefined
  let reject: (reason: unknown) => void = () => undefined
  const timer = setTimeout(() => resolve(KEEP_ALIVE), milliseconds)
  const onAbort = () => reject(signal.reason)
  signal.addEventListener('abort', onAbort, { once: true })
  let pending: Promise<IteratorResult<T>> | undefined
  try {
    for (;;) {
      signal.throwIfAborted()
      pending ??= iterator.next()
      const next = await new Promise<IteratorResult<T> | typeof KEEP_ALIVE>((res, rej) => {
        resolve = res
        reject = rej
        pending?.then(res, rej)
      })
      if (next !== KEEP_ALIVE) {
        if (next.done === true) return
        pending = undefined
      }
      yield next === KEEP_ALIVE ? next : next.value
      timer.refresh()
    }
  } finally {
    clearTimeout(timer)
    signal.removeEventListener('abort', onAbort)
    iterator.return?.()?.catch(() => undefined)
  }
}
