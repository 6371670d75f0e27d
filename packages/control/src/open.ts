import { IceboxError, isError, type Node } from '@icebox/model'
import type { ResourceStore } from '@icebox/store'
import type { Context, Log } from './context.ts'
import type { Control } from './control.ts'
import { Exits } from './exits.ts'
import { Expiry } from './expiry.ts'
import { imageService } from './images/service.ts'
import { Operations } from './operations.ts'
import { PAUSED_BY_SHUTDOWN } from './reconcile/plan.ts'
import { Reconciler } from './reconcile/reconcile.ts'
import { Records } from './records.ts'
import { sandboxService } from './sandboxes/service.ts'
import { snapshotService } from './snapshots/service.ts'
import { templateService } from './templates/service.ts'

/** Opens the control plane over a store and a node: first everything a crash left is finished, undone or removed. */
export async function openControl({
  store,
  node,
  log,
}: {
  store: ResourceStore
  node: Node
  log: Log
}): Promise<Control> {
  const stopping = new AbortController()
  const closing = new AbortController()
  const records = new Records(store)
  const context: Context = {
    records,
    exits: new Exits(records, log),
    node,
    operations: new Operations(),
    log,
    stopping: stopping.signal,
    closing: closing.signal,
  }
  const reconciler = new Reconciler(context)
  const expiry: Expiry = new Expiry(context, async (name) => (await sandboxes.delete(name, context.closing)).settled)
  const sandboxes = sandboxService(context, expiry)

  const exits: Promise<void>[] = []
  let starting = true
  node.onExit((exit) => {
    const marked = context.exits.ended(exit)
    if (starting) exits.push(marked)
  })
  // What was found dead at the start is told with its reason before the reconciler looks for what is missing.
  await Promise.all(exits)
  starting = false
  await reconciler.start()
  expiry.changed()

  return {
    sandboxes,
    snapshots: snapshotService(context, sandboxes),
    templates: templateService(context),
    images: imageService(context),
    async close(mode, signal) {
      const aborted = new Promise<never>((_, reject) =>
        signal.addEventListener('abort', () => reject(signal.reason), { once: true }),
      )
      aborted.catch(() => undefined)
      stopping.abort(new IceboxError('Unavailable', 'the server is shutting down'))
      try {
        await Promise.race([aborted, context.operations.idle()])
        if (mode === 'pause') {
          const failures = await Promise.race([aborted, reconciler.pauseAll(PAUSED_BY_SHUTDOWN)])
          for (const { name, error } of failures)
            log('error', 'shutdown.pause.failed', { sandbox: name, error: error.message })
          await Promise.race([aborted, context.operations.idle()])
        }
        if (mode === 'kill') {
          const removed = (await records.list('Sandbox')).map(async ({ metadata: { name } }) => {
            try {
              await (await sandboxes.delete(name, signal)).settled
            } catch (error) {
              if (!isError(error, 'NotFound'))
                log('error', 'shutdown.delete.failed', { sandbox: name, error: IceboxError.from(error).message })
            }
          })
          await Promise.race([aborted, Promise.all(removed)])
        }
      } finally {
        closing.abort()
        await node.close()
        await store.close()
      }
    },
  }
}
