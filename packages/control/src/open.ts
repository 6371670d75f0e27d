import { createHmac } from 'node:crypto'
import { DEFAULT_PROJECT, derivedSandboxId, IceboxError, isError, type Node, SYSTEM_NAMESPACE } from '@icebox/model'
import type { ResourceStore } from '@icebox/store'
import { Admission } from './admission.ts'
import { Cache } from './cache/cache.ts'
import type { SandboxSummary } from './cache/summary.ts'
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
import { Records } from './records.ts'
import { retirementAlarm } from './retirement.ts'
import { expire } from './sandboxes/expire.ts'
import { pauseForSpace, tellHeld } from './sandboxes/pause-for-space.ts'
import { arrivalsOf, sandboxService } from './sandboxes/service.ts'
import { PAUSED_BY_SHUTDOWN } from './sandboxes/time.ts'
import { snapshotAlarm } from './snapshots/retention.ts'
import { snapshotService } from './snapshots/service.ts'
import { type ServerDeaths, tellDeaths } from './telemetry/deaths.ts'
import { Events } from './telemetry/events.ts'
import { Metrics } from './telemetry/metrics.ts'
import { Telemetry } from './telemetry/telemetry.ts'
import { tellMissed, tellTransitions } from './telemetry/transitions.ts'
import { templateService } from './templates/service.ts'
import { Tokens, trafficService } from './traffic.ts'
import { Transfers } from './transfers.ts'
import { usageOf } from './usage.ts'

/** Sandboxes that are deleted at once when the server goes down with `kill`. */
const DELETES_AT_ONCE = 64

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
  deaths = { counts: {}, untold: [] },
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
  /** Of the servers before this one. */
  deaths?: ServerDeaths
  /** Removes snapshots and machines that no record claims, instead of refusing to start beside them. */
  forget?: boolean
}): Promise<Control> {
  const stopping = new AbortController()
  const closing = new AbortController()
  const tokens = new Tokens(tokenSecret)
  const cache = await Cache.open(store, log, closing.signal)
  const admission = new Admission(limits, (project) => cache.of('Sandbox', project), stopping.signal)
  const events = await Events.open(directory.events, log)
  const logs = new SandboxLogs(directory.logs, log)
  const recordsOf = (project: string) => new Records(store, cache, project)
  const expiry = sandboxAlarm(
    cache,
    ({ namespace, name }) => recordsOf(namespace).find('Sandbox', name),
    (sandbox) => expire(contextOf(sandbox.metadata.namespace), sandbox),
    log,
    stopping.signal,
  )
  const growth = new DiskWatch({
    cache,
    node,
    pause: (project, name) => pauseForSpace(contextOf(project), name),
    tell: (project, name) => tellHeld(contextOf(project), name),
    log,
    stopping: stopping.signal,
  })
  const shared = {
    growth,
    expiry,
    cache,
    exits: new Exits(recordsOf, cache, log),
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
    telemetry: new Telemetry(new Metrics(cache, deaths), log),
    transfers: new Transfers(limits),
    stopping: stopping.signal,
    closing: closing.signal,
  }
  const contextOf = (project: string, byInstallation = false): Context => ({
    ...shared,
    records: recordsOf(project),
    byInstallation,
    project: (name) => contextOf(name),
  })
  const context = contextOf(SYSTEM_NAMESPACE)
  const unclaimed = await findUnclaimed(context, { forget }).catch(async (thrown: unknown) => {
    closing.abort()
    await cache.closed()
    await events.close()
    throw thrown
  })
  const tell = tellTransitions(events)
  cache.onChange((change) => {
    tell(change)
    const { kind, before, after, resource } = change
    if (kind !== 'Sandbox' || before?.state === after?.state) return
    if (after?.state === 'failed') retirement.changed()
    if (resource?.kind === 'Sandbox')
      logTransition(contextOf(resource.metadata.namespace), resource, after === undefined ? 'deleted' : undefined)
  })
  await logs.keepOnly((name) => cache.all('Sandbox').first('name', name) !== undefined)
  const reconciler = new Reconciler(context)
  const remove = async ({ namespace, name }: SandboxSummary) =>
    (await project(namespace).sandboxes.delete(name, context.closing)).settled
  const snapshotExpiry = snapshotAlarm(context)
  const retirement = retirementAlarm(context)
  const projects = new Map<string, Project>()
  const ofDefault = arrivalsOf(contextOf(DEFAULT_PROJECT))
  /** The services that make something of images. */
  const makersOf = (own: Context) => {
    const arrivals = own.records.namespace === DEFAULT_PROJECT ? ofDefault : arrivalsOf(own)
    return { sandboxes: sandboxService(own, arrivals), templates: templateService(own), images: imageService(own) }
  }
  const project = (name: string): Project => {
    const known = projects.get(name)
    if (known !== undefined) return known
    const own = contextOf(name)
    const { sandboxes, templates, images } = makersOf(own)
    const opened: Project = {
      name,
      sandboxes,
      snapshots: snapshotService(own, sandboxes, snapshotExpiry),
      templates,
      images,
      usage: (period, page) => usageOf(own.records, period, page),
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
  await tellMissed(events, context)
  tellDeaths(events, deaths)
  await reconciler.start(unclaimed)
  for (const { namespace, name } of [...cache.all('Sandbox').where('state', 'running')]) {
    const sandbox = await recordsOf(namespace).find('Sandbox', name)
    if (sandbox !== undefined) void collectLogs(contextOf(namespace), sandbox)
  }
  growth.start()
  expiry.changed()
  snapshotExpiry.changed()
  retirement.changed()

  return {
    project,
    installation: { ...project(DEFAULT_PROJECT), ...makersOf(contextOf(DEFAULT_PROJECT, true)) },
    events: { list: (filter) => events.list(filter), follow: (filter, signal) => events.follow(filter, signal) },
    metrics: () => shared.telemetry.metrics.text(),
    keys: keyService(context, installationKey),
    traffic: trafficService(context, tokens),
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
          // All take from the same list.
          const rest = [...cache.each('Sandbox')].values()
          const removeRest = async () => {
            for (const sandbox of rest)
              try {
                await remove(sandbox)
              } catch (error) {
                if (!isError(error, 'NotFound'))
                  log('error', 'shutdown.delete.failed', {
                    sandbox: sandbox.name,
                    error: IceboxError.from(error).message,
                  })
              }
          }
          await Promise.race([aborted, Promise.all(Array.from({ length: DELETES_AT_ONCE }, removeRest))])
        }
      } finally {
        closing.abort()
        await cache.closed()
        await logs.close()
        await events.close()
        await node.close()
        await store.close()
      }
    },
  }
}
