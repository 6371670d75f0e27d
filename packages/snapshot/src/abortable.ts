import { IceboxError } from '@icebox/model'

/** Throws DeadlineExceeded once the signal has aborted. */
export function throwIfAborted(signal: AbortSignal): void {
  if (signal.aborted) throw IceboxError.from(signal.reason)
}

/** Waits for shared work until the signal aborts (DeadlineExceeded); the work itself goes on for the others. */
export function abortable<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(IceboxError.from(signal.reason))
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
    if (signal.aborted) abort()
    else signal.addEventListener('abort', abort)
  })
}
