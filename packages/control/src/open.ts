import { canExec, IceboxError, isError, type Node } from '@icebox/model'
import type { ResourceStore } from '@icebox/store'
import type { Context, Log } from './context.ts'
import type { Control } from './control.ts'
import { Expiry } from './expiry.ts'
import { imageService } from './images/service.ts'
import { Operations } from './operations.ts'
import { PAUSED_BY_SHUTDOWN } from './reconcile/plan.ts'
import { Reconciler } from './reconcile/reconcile.ts'
import { Records, settledStatus } from './records.ts'
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
  const closing = new AbortController()
  const context: Context = {
    records: new Records(store),
    node,
    operations: new Operations(),
    log,
    closing: closing.signal,
  }
  const reconciler = new Reconciler(context)
  const expiry: Expiry = new Expiry(context, async (name) => (await sandboxes.delete(name, context.closing)).settled)
  const sandboxes = sandboxService(context, expiry)

  const exits: Promise<void>[] = []
  let starting = true
  node.onExit(({ execution, reason, message }) => {
    const marked = markFailed(context, execution, reason, message).catch((error) =>
      log('error', 'machine.exit.unrecorded', { execution, error: IceboxError.from(error).message }),
    )
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
      try {
        await Promise.race([aborted, context.operations.idle()])
        if (mode === 'pause') {
          const failures = await Promise.race([aborted, reconciler.pauseAll(PAUSED_BY_SHUTDOWN)])
          for (const { name, error } of failures)
            log('error', 'shutdown.pause.failed', { sandbox: name, error: error.message })
          await Promise.race([aborted, context.operations.idle()])
        }
        if (mode === 'kill') {
          for (const { metadata } of await context.records.list('Sandbox')) {
            await Promise.race([aborted, sandboxes.delete(metadata.name, signal).then(({ settled }) => settled)])
          }
        }
      } finally {
        closing.abort()
        await node.close()
        await store.close()
      }
    },
  }
}

/** A run has ended by itself: whoever ran on it has failed, with the reason and the way back. */
async function markFailed(context: Context, execution: string, reason: string, message: string): Promise<void> {
  const sandbox = (await context.records.list('Sandbox')).find(({ status }) => status.execution === execution)
  if (sandbox === undefined) return
  const { name } = sandbox.metadata
  const back = sandbox.status.pausedIn ?? sandbox.status.lastSnapshot
  const revive = back === undefined ? '' : `; \`icebox rollback ${name} ${back}\` revives it from its last snapshot`
  try {
    await context.records.setStatus('Sandbox', name, ({ status }) =>
      // A late message about an earlier run changes nothing; an operation under way sees the end itself.
      status.execution === execution && canExec(status.state)
        ? { ...settledStatus(status), state: 'failed', reason, message: `${message}${revive}` }
        : undefined,
    )
    context.log('error', 'sandbox.failed', { sandbox: name, execution, reason, message })
  } catch (error) {
    if (!isError(error, 'NotFound')) throw error
  }
}
