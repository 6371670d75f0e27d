import { IceboxError, isError } from '@icebox/model'
import { Alarm } from '../alarm.ts'
import type { OfProject } from '../cache/collection.ts'
import type { SnapshotSummary, TemplateSummary } from '../cache/summary.ts'
import type { Context } from '../context.ts'
import { newestFirst } from '../page.ts'
import { Tries } from '../tries.ts'
import { beginDelete } from './delete.ts'

/** How long a snapshot is left alone whose time is over and that something stands on. */
const RETRY_MS = 60_000

/**
 * The snapshots that are over the keep count of a template of their project: of those that were asked for, of sandboxes made
 * from the template, all but the newest so many that are ready. Children in the tree, names and expiry make no difference.
 */
export function overKept(snapshots: OfProject<'Snapshot'>, template: TemplateSummary): SnapshotSummary[] {
  const { keepSnapshots, name } = template
  if (keepSnapshots === undefined) return []
  const ready = [...snapshots.where('template', name)].filter(({ state }) => state === 'ready')
  return ready.sort(newestFirst).slice(keepSnapshots)
}

/** Deletes one whose time has come. False: something stands on it, or somebody is at work on it. */
export async function retire(context: Context, { name }: SnapshotSummary, reason: string): Promise<boolean> {
  try {
    const { settled } = await context.operations.exclusive(name, 'delete', () => beginDelete(context, name))
    await settled
    context.log('info', 'snapshot.retired', { snapshot: name, project: context.records.namespace, reason })
    return true
  } catch (error) {
    if (isError(error, 'NotFound')) return true
    if (isError(error, 'InUse', 'Conflict')) return false
    throw error
  }
}

/** To be called when a snapshot has become ready. Those in use stay until the next time. */
export async function retireOverKept(context: Context, template: string): Promise<void> {
  const found = context.records.of('Template').first('name', template)
  if (found === undefined) return
  for (const snapshot of overKept(context.records.of('Snapshot'), found))
    await retire(context, snapshot, `template ${template} keeps ${found.keepSnapshots}`)
}

/** Deletes snapshots when their time is over, those of all projects. The time stands in the resource, and survives a restart. */
export function snapshotAlarm(context: Context): Alarm {
  const tries = new Tries()
  const retireDue = async (snapshot: SnapshotSummary, due: number) => {
    const { name, namespace } = snapshot
    try {
      const reason = `it was to be kept until ${new Date(due).toISOString()}`
      if (await retire(context.project(namespace), snapshot, reason)) tries.forget(name)
    } catch (error) {
      context.log('error', 'snapshot.retire.failed', { snapshot: name, error: IceboxError.from(error).message })
    }
  }
  const look = async () => {
    for (const snapshot of context.cache.all('Snapshot').by('due')) {
      const { due = 0, name } = snapshot
      if (due > Date.now()) return tries.nearest(due)
      if (!tries.mayTry(name)) continue
      tries.again(name, RETRY_MS)
      void retireDue(snapshot, due)
    }
    return tries.nearest(undefined)
  }
  return new Alarm(look, context.log, context.stopping)
}
