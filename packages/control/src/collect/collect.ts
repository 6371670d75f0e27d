import { isError, type Snapshot, type Template } from '@icebox/model'
import { type Context, DEADLINES, within } from '../context.ts'
import type { Collected } from '../control.ts'
import { MISSING } from '../missing.ts'
import { requireUnused } from '../snapshots/delete.ts'
import { dropSnapshot } from '../snapshots/remove.ts'
import { isExpired, overKept, retire } from '../snapshots/retention.ts'
import { operationKey } from '../templates/resolve.ts'
import { finishTemplateDelete } from '../templates/service.ts'
import { forgotten, unclaimed } from './forgotten.ts'

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
/** How long it is kept what a sandbox that is gone has used, and with it that its idempotency key is taken. */
const USAGE_KEPT_MS = 90 * DAY_MS
/** How long the hidden template of an image is kept that no sandbox stands on. */
const BARE_TEMPLATE_KEPT_MS = 30 * DAY_MS
/** Younger than this, what nobody claims may be about to be claimed: no save, import or build takes so long to write its record. */
const SETTLED_MS = HOUR_MS

interface Removal extends Collected {
  /** False: something came to stand on it. */
  remove: () => Promise<boolean>
}

const always = async (work: Promise<unknown>): Promise<true> => {
  await work
  return true
}

async function perform(removals: readonly Removal[], dryRun: boolean, signal: AbortSignal): Promise<Collected[]> {
  const collected: Collected[] = []
  for (const { remove, ...what } of removals) {
    signal.throwIfAborted()
    if (dryRun || (await remove())) collected.push(what)
  }
  return collected
}

/** What of one project has expired, is over a keep count, or is not needed any more. */
export async function collectProject(
  context: Context,
  { dryRun }: { dryRun: boolean },
  signal: AbortSignal,
): Promise<Collected[]> {
  return perform(await removalsOf(context), dryRun, signal)
}

async function removalsOf(context: Context): Promise<Removal[]> {
  const { records } = context
  const now = Date.now()
  const [snapshots, templates, sandboxes, usages] = await Promise.all([
    records.list('Snapshot'),
    records.list('Template'),
    records.list('Sandbox'),
    records.list('UsageRecord'),
  ])
  const project = records.namespace

  const retiring = new Map<Snapshot, string>()
  for (const snapshot of overKept(templates, snapshots))
    retiring.set(snapshot, `template ${snapshot.spec.template} keeps fewer`)
  for (const snapshot of snapshots)
    if (snapshot.spec.purpose === 'user' && isExpired(snapshot, now))
      retiring.set(snapshot, `it was to be kept until ${snapshot.spec.expiresAt}`)
  for (const snapshot of snapshots) {
    const { state, reason, message } = snapshot.status
    if (snapshot.spec.purpose === 'user' && state === 'failed' && reason !== MISSING)
      retiring.set(snapshot, `it was not taken: ${message}`)
  }

  const removals: Removal[] = []
  for (const [snapshot, reason] of retiring) {
    if (!(await isUnused(context, snapshot))) continue
    removals.push({
      what: 'snapshot',
      id: snapshot.metadata.name,
      project,
      reason,
      bytes: snapshot.status.sizeBytes ?? 0,
      remove: () => retire(context, snapshot, reason),
    })
  }

  const images = new Set(sandboxes.map(({ status }) => status.imageName))
  for (const template of templates.filter(({ spec }) => spec.hidden)) {
    const { metadata, status } = template
    const since = now - Date.parse(status.lastTransitionAt)
    const unused = since > BARE_TEMPLATE_KEPT_MS && !images.has(status.imageName)
    if (status.state !== 'failed' && !(status.state === 'ready' && unused)) continue
    removals.push({
      what: 'template',
      id: metadata.name,
      project,
      reason:
        status.state === 'failed' ? 'its build has failed' : 'no sandbox has stood on its image for long, or ever',
      bytes: bytesOf(snapshots, status.snapshot),
      remove: () => removeHidden(context, template),
    })
  }

  for (const { metadata, spec } of usages) {
    if (now - Date.parse(spec.deletedAt) < USAGE_KEPT_MS) continue
    removals.push({
      what: 'usage',
      id: metadata.name,
      project,
      reason: `its sandbox was deleted at ${spec.deletedAt}`,
      bytes: 0,
      remove: () => always(records.remove('UsageRecord', metadata.name)),
    })
  }
  return removals
}

const bytesOf = (snapshots: readonly Snapshot[], name: string | undefined): number =>
  snapshots.find(({ metadata }) => metadata.name === name)?.status.sizeBytes ?? 0

async function isUnused(context: Context, { metadata: { name } }: Snapshot): Promise<boolean> {
  try {
    await requireUnused(context, name)
    return !context.operations.isBusy(name)
  } catch (error) {
    if (isError(error, 'InUse', 'Conflict', 'NotFound')) return false
    throw error
  }
}

/** Unless a sandbox is about to be made of it, or somebody builds it again. */
async function removeHidden(context: Context, { metadata: { name }, status }: Template): Promise<boolean> {
  const { operations, records } = context
  const key = operationKey(context, name)
  if (operations.isBusy(key)) return false
  const starting = (await records.list('Sandbox')).some(({ status: { operation } }) => {
    return operation?.snapshot !== undefined && operation.snapshot === status.snapshot
  })
  if (starting) return false
  try {
    const { settled } = await operations.exclusive(key, 'delete', async () => {
      const intent = ({ status: present }: Template) => ({ ...present, state: 'deleting' as const })
      const resource = await records.setStatus('Template', name, intent)
      return { resource, settled: finishTemplateDelete(context, resource) }
    })
    await settled
    return true
  } catch (error) {
    if (isError(error, 'Conflict', 'NotFound')) return false
    throw error
  }
}

/** The same of every project, and what belongs to nobody: hidden snapshots and files that were left behind. */
export async function collectAll(
  context: Context,
  { dryRun }: { dryRun: boolean },
  signal: AbortSignal,
): Promise<Collected[]> {
  const { node, records } = context
  const all = await Promise.all([
    records.listEverywhere('Snapshot'),
    records.listEverywhere('Template'),
    records.listEverywhere('UsageRecord'),
  ])
  const projects = new Set(all.flat().map(({ metadata }) => metadata.namespace))
  const collected: Collected[] = []
  for (const project of [...projects].sort())
    collected.push(...(await collectProject(context.project(project), { dryRun }, signal)))
  collected.push(...(await perform(await orphans(context), dryRun, signal)))
  for (const { file, bytes } of await node.sweep({ dryRun }, AbortSignal.any([signal, context.closing])))
    collected.push({ what: 'file', id: file, reason: 'nobody has written to it for a day', bytes })
  return collected
}

async function orphans(context: Context): Promise<Removal[]> {
  const { node, operations, records } = context
  const call = () => within(context, DEADLINES.call)
  // Claims are read after what they claim, so that one that is made meanwhile counts.
  const { complete } = await node.listSnapshots(call())
  const snapshots = await records.listEverywhere('Snapshot')
  const templates = await records.listEverywhere('Template')
  const sandboxes = await records.listEverywhere('Sandbox')
  const isSettled = (createdAt: string) => Date.now() - Date.parse(createdAt) > SETTLED_MS
  const parted = forgotten(snapshots, { sandboxes, templates }).filter(({ metadata }) => isSettled(metadata.createdAt))
  const unknown = unclaimed(complete, snapshots, sandboxes).filter(
    ({ id, createdAt }) => isSettled(createdAt) && !operations.isBusy(id),
  )
  return [
    ...parted.map(({ metadata: { name, namespace }, spec, status }) => ({
      what: 'snapshot' as const,
      id: name,
      project: namespace,
      reason: `what it was taken for (${spec.purpose}) is gone`,
      bytes: status.sizeBytes ?? 0,
      remove: () => always(dropSnapshot(context.project(namespace), name)),
    })),
    ...unknown.map(({ id, sizeBytes }) => ({
      what: 'snapshot' as const,
      id,
      reason: 'there is no record of it',
      bytes: sizeBytes,
      remove: () => always(node.removeSnapshot(id, call())),
    })),
  ]
}
