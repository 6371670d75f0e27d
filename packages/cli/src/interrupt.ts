import { constants } from 'node:os'

/** A signal asked for the end. */
export class Interrupted extends Error {
  override readonly name = 'Interrupted'
  /** As a shell reports a program that the signal ended. */
  readonly status: number

  constructor(signal: NodeJS.Signals) {
    super(`stopped by ${signal}`)
    this.status = 128 + constants.signals[signal]
  }
}

/**
 * Fires, with an Interrupted as its reason, when the person or system wants this to end, so that nothing half-done stays.
 * A second signal ends the process at once.
 */
export function interruption(): AbortSignal {
  const controller = new AbortController()
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(name, () => {
      const reason = new Interrupted(name)
      if (controller.signal.aborted) process.exit(reason.status)
      controller.abort(reason)
    })
  return controller.signal
}

/** Does work that can be stopped. However it fails once it was told to stop, that is why. */
export async function interruptible<T>(work: (stop: AbortSignal) => Promise<T>): Promise<T> {
  const stop = interruption()
  try {
    return await work(stop)
  } catch (thrown) {
    stop.throwIfAborted()
    throw thrown
  }
}
