import { isError, type SnapshotInfo, type Template } from '@icebox/model'
import type { SnapshotSummary, TemplateSummary, UsageRecordSummary } from '../cache/summary.ts'
import { type Context, DEADLINES, within } from '../context.ts'
import type { Collected } from '../control.ts'
import { MISSING } from '../missing.ts'
import { requireUnused } from '../snapshots/delete.ts'
import { dropSnapshot } from '../snapshots/remove.ts'
import { overKept, retire } from '../snapshots/retention.ts'
import { operationKey } from '../templates/resolve.ts'
import { finishTemplateDelete } from '../templates/service.ts'
import { HIDDEN_PURPOSES, isClaimed, isForgotten } from './forgotten.ts'

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
/** How long it is kept what a sandbox that is gone has used, and with it that its idempotency key is taken. */
const USAGE_KEPT_MS = 90 * DAY_MS
/** How long the hidden template of an image is kept that no sandbox stands on. */
const BARE_TEMPLATE_KEPT_MS = 30 * DAY_MS
/** Younger than this, what nobody claims may be about to be claimed: no save, import or build takes so long to write its record. */
const SETTLED_MS = HOUR_MS

/** Those that have been kept long enough. */
export function* expiredUsage(oldest: Iterable<UsageRecordSummary>, now: number): Generator<UsageRecordSummary> {
  for (const record of oldest) {
    if (now - Date.parse(record.deletedAt) < USAGE_KEPT_MS) return
    yield record
  }
}

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
  const snapshots = records.of('Snapshot')
  const templates = [...records.of('Template').by('created')]
  const sandboxes = records.of('Sandbox')
  const project = records.namespace

  const retiring = new Map<SnapshotSummary, string>()
  for (const template of templates)
    for (const snapshot of overKept(snapshots, template))
      retiring.set(snapshot, `template ${snapshot.template} keeps fewer`)
  for (const snapshot of snapshots.by('due')) {
    if ((snapshot.due ?? now) > now) break
    retiring.set(snapshot, `it was to be kept until ${new Date(snapshot.due ?? now).toISOString()}`)
  }
  for (const snapshot of snapshots.where('state', 'failed'))
    if (snapshot.purpose === 'user' && snapshot.reason !== MISSING) retiring.set(snapshot, 'it was not taken')

  const removals: Removal[] = []
  for (const [snapshot, reason] of retiring) {
    if (!(await isUnused(context, snapshot))) continue
    removals.push({
      what: 'snapshot',
      id: snapshot.name,
      project,
      reason,
      bytes: snapshot.sizeBytes,
      remove: () => retire(context, snapshot, reason),
    })
  }

  for (const template of templates.filter(({ hidden }) => hidden)) {
    const { name, state, since, image, snapshot } = template
    const unused = now - Date.parse(since) > BARE_TEMPLATE_KEPT_MS && sandboxes.first('image', image) === undefined
    if (state !== 'failed' && !(state === 'ready' && unused)) continue
    removals.push({
      what: 'template',
      id: name,
      project,
      reason: state === 'failed' ? 'its build has failed' : 'no sandbox has stood on its image for long, or ever',
      bytes: snapshots.first('name', snapshot)?.sizeBytes ?? 0,
      remove: () => removeHidden(context, template),
    })
  }

  for (const { name, deletedAt } of expiredUsage(records.of('UsageRecord').by('deleted'), now))
    removals.push({
      what: 'usage',
      id: name,
      project,
      reason: `its sandbox was deleted at ${deletedAt}`,
      bytes: 0,
      remove: () => always(records.remove('UsageRecord', name)),
    })
  return removals
}

async function isUnused(context: Context, { name }: SnapshotSummary): Promise<boolean> {
  try {
    await requireUnused(context, name)
    return !context.operations.isBusy(name)
  } catch (error) {
    if (isError(error, 'InUse', 'Conflict', 'NotFound')) return false
    throw error
  }
}

/** Unless a sandbox is about to be made of it, or somebody builds it again. */
async function removeHidden(context: Context, { name, snapshot }: TemplateSummary): Promise<boolean> {
  const { operations, records } = context
  const key = operationKey(context, name)
  if (operations.isBusy(key)) return false
  if (records.of('Sandbox').first('restores', snapshot) !== undefined) return false
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
  const { cache, node } = context
  const projects = new Set((['Snapshot', 'Template', 'UsageRecord'] as const).flatMap((kind) => cache.projectsOf(kind)))
  const collected: Collected[] = []
  for (const project of [...projects].sort())
    collected.push(...(await collectProject(context.project(project), { dryRun }, signal)))
  collected.push(...(await perform(await orphans(context), dryRun, signal)))
  for (const { file, bytes } of await node.sweep({ dryRun }, AbortSignal.any([signal, context.closing])))
    collected.push({ what: 'file', id: file, reason: 'nobody has written to it for a day', bytes })
  return collected
}

async function orphans(context: Context): Promise<Removal[]> {
  const { cache, node, operations } = context
  const call = () => within(context, DEADLINES.call)
  const isSettled = (createdAt: string) => Date.now() - Date.parse(createdAt) > SETTLED_MS
  const parted = HIDDEN_PURPOSES.flatMap((purpose) =>
    [...cache.all('Snapshot').where('purpose', purpose)].filter(
      (snapshot) => isForgotten(cache, snapshot) && isSettled(snapshot.createdAt),
    ),
  )
  const unknown: SnapshotInfo[] = []
  for (const id of await node.listSnapshots(call())) {
    if (isClaimed(cache, id) || operations.isBusy(id)) continue
    const found = await node.findSnapshot(id, call())
    if (found !== undefined && found !== 'damaged' && isSettled(found.createdAt)) unknown.push(found)
  }
  return [
    ...parted.map(({ name, namespace, purpose, sizeBytes }) => ({
      what: 'snapshot' as const,
      id: name,
      project: namespace,
      reason: `what it was taken for (${purpose}) is gone`,
      bytes: sizeBytes,
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
