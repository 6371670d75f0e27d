import { createHmac } from 'node:crypto'
import { derivedSandboxId, IceboxError, isError, type Node, type Sandbox, SYSTEM_NAMESPACE } from '@icebox/model'
import type { ResourceStore } from '@icebox/store'
import { Admission } from './admission.ts'
import { collectAll, collectProject } from './collect/collect.ts'
import type { Context } from './context.ts'
import type { Control, Project } from './control.ts'
import { DiskWatch } from './disk-watch.ts'
import { Exits } from './exits.ts'
import { sandboxAlarm } from './expiry.ts'
import { imageService } from './images/service.ts'
import { keyService } from './keys.ts'
import { Limits } from './limits.ts'
import type { Log } from './log.ts'
import { collectLogs } from './logs/collect.ts'
import { SandboxLogs } from './logs/logs.ts'
import { logTransition } from './logs/transition.ts'
import { Operations } from './operations.ts'
import { findUnclaimed } from './reconcile/claims.ts'
import { Reconciler } from './reconcile/reconcile.ts'
import { type OnTransition, Records } from './records.ts'
import { expire } from './sandboxes/expire.ts'
import { pauseForSpace, tellHeld } from './sandboxes/pause-for-space.ts'
import { sandboxService } from './sandboxes/service.ts'
import { PAUSED_BY_SHUTDOWN } from './sandboxes/time.ts'
import { snapshotAlarm } from './snapshots/retention.ts'
import { snapshotService } from './snapshots/service.ts'
import { Events } from './telemetry/events.ts'
import { Metrics } from './telemetry/metrics.ts'
import { Telemetry } from './telemetry/telemetry.ts'
import { tellMissed, tellTransitions } from './telemetry/transitions.ts'
import { templateService } from './templates/service.ts'
import { trafficService, Whereabouts } from './traffic.ts'
import { Transfers } from './transfers.ts'
import { usageOf } from './usage.ts'

/**
 * Opens the control plane over a store and a node: first everything a crash left is finished, undone or removed. Throws InvalidState
 * when the node has what was made with other records than those of the store; then nothing was changed.
 */
export async function openControl({
  store,
  node,
  log,
  installationKey,
  tokenSecret,
  directory,
  limits = Limits.parse({}),
  forget = false,
}: {
  store: ResourceStore
  node: Node
  log: Log
  /** The API key that is in the data directory. */
  installationKey: string
  /** What the tokens of sandboxes are derived from: the same at every start. */
  tokenSecret: Buffer
  /** Existing ones of the data directory: for the events of all, and for the logs of sandboxes. */
  directory: { events: string; logs: string }
  limits?: Limits
  /** Removes snapshots and machines that no record claims, instead of refusing to start beside them. */
  forget?: boolean
}): Promise<Control> {
  const stopping = new AbortController()
  const closing = new AbortController()
  const admission = new Admission(limits, stopping.signal)
  const whereabouts = new Whereabouts(tokenSecret)
  const events = await Events.open(directory.events, log)
  const logs = new SandboxLogs(directory.logs, log)
  const tell = tellTransitions(events)
  const noted = (sandbox: Sandbox, gone: boolean) => {
    admission.note(sandbox, gone)
    growth.note(sandbox, gone)
    whereabouts.note(sandbox, gone)
  }
  const onTransition: OnTransition = (resource, from, to) => {
    tell(resource, from, to)
    if (resource.kind !== 'Sandbox') return
    noted(resource, to === 'deleted')
    logTransition(contextOf(resource.metadata.namespace), resource, to)
  }
  const recordsOf = (project: string) => new Records(store, project, onTransition)
  const expiry = sandboxAlarm(
    recordsOf(SYSTEM_NAMESPACE),
    (sandbox) => expire(contextOf(sandbox.metadata.namespace), sandbox),
    log,
    stopping.signal,
  )
  const growth = new DiskWatch({
    node,
    pause: (project, name) => pauseForSpace(contextOf(project), name),
    tell: (project, name) => tellHeld(contextOf(project), name),
    log,
    stopping: stopping.signal,
  })
  const shared = {
    growth,
    expiry,
    exits: new Exits(recordsOf, log),
    node,
    operations: new Operations(),
    admission,
    sandboxIdOf: (of: string, key: string) =>
      derivedSandboxId(
        createHmac('sha256', tokenSecret)
          .update(JSON.stringify(['sandbox', of, key]))
          .digest('hex'),
      ),
    log,
    logs,
    transfers: new Transfers(limits),
    telemetry: new Telemetry(new Metrics(recordsOf(SYSTEM_NAMESPACE)), log),
    stopping: stopping.signal,
    closing: closing.signal,
  }
  const contextOf = (project: string): Context => ({ ...shared, records: recordsOf(project), project: contextOf })
  const context = contextOf(SYSTEM_NAMESPACE)
  const present = await context.records.listEverywhere('Sandbox')
  const unclaimed = await findUnclaimed(context, present, { forget }).catch(async (thrown: unknown) => {
    closing.abort()
    await events.close()
    throw thrown
  })
  for (const sandbox of present) noted(sandbox, false)
  await logs.keepOnly(new Set(present.map(({ metadata }) => metadata.name)))
  const reconciler = new Reconciler(context)
  const remove = async ({ metadata }: Sandbox) =>
    (await project(metadata.namespace).sandboxes.delete(metadata.name, context.closing)).settled
  const snapshotExpiry = snapshotAlarm(context)
  const projects = new Map<string, Project>()
  const project = (name: string): Project => {
    const known = projects.get(name)
    if (known !== undefined) return known
    const own = contextOf(name)
    const sandboxes = sandboxService(own)
    const opened: Project = {
      name,
      sandboxes,
      snapshots: snapshotService(own, sandboxes, snapshotExpiry),
      templates: templateService(own),
      images: imageService(own),
      usage: (period) => usageOf(own.records, period),
      collect: (options, signal) => collectProject(own, options, signal),
    }
    projects.set(name, opened)
    return opened
  }

  const exits: Promise<void>[] = []
  let starting = true
  node.onExit((exit) => {
    const marked = context.exits.ended(exit, starting ? node.lastSeen : undefined)
    if (starting) exits.push(marked)
  })
  // What was found dead at the start is told with its reason before the reconciler looks for what is missing.
  await Promise.all(exits)
  starting = false
  await tellMissed(events, context.records)
  await reconciler.start(unclaimed)
  for (const sandbox of await context.records.listEverywhere('Sandbox'))
    if (sandbox.status.state === 'running') void collectLogs(contextOf(sandbox.metadata.namespace), sandbox)
  growth.start()
  expiry.changed()
  snapshotExpiry.changed()

  return {
    project,
    events: { list: (filter) => events.list(filter), follow: (filter, signal) => events.follow(filter, signal) },
    metrics: () => shared.telemetry.metrics.text(),
    keys: keyService(context.records, installationKey),
    traffic: trafficService(context, whereabouts),
    collect: (options, signal) => collectAll(context, options, signal),
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
          const removed = (await context.records.listEverywhere('Sandbox')).map(async (sandbox) => {
            try {
              await remove(sandbox)
            } catch (error) {
              if (!isError(error, 'NotFound'))
                log('error', 'shutdown.delete.failed', {
                  sandbox: sandbox.metadata.name,
                  error: IceboxError.from(error).message,
                })
            }
          })
          await Promise.race([aborted, Promise.all(removed)])
        }
      } finally {
        closing.abort()
        await logs.close()
        await events.close()
        await node.close()
        await store.close()
      }
    },
  }
}
