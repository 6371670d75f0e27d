import { IceboxError, isError, type Snapshot, type Template } from '@icebox/model'
import { Alarm } from '../alarm.ts'
import type { Context } from '../context.ts'
import { newestFirst } from '../page.ts'
import { beginDelete } from './delete.ts'

/** How long a snapshot is left alone whose time is over and that something stands on. */
const RETRY_MS = 60_000

export const isExpired = ({ spec: { expiresAt } }: Snapshot, now: number): boolean =>
  expiresAt !== undefined && Date.parse(expiresAt) <= now

/**
 * The snapshots of one project that are over the keep count of their template: of those that were asked for, of sandboxes made
 * from the template, all but the newest so many that are ready. Children in the tree, names and expiry make no difference.
 */
export function overKept(templates: readonly Template[], snapshots: readonly Snapshot[]): Snapshot[] {
  return templates.flatMap(({ metadata, spec: { keepSnapshots } }) => {
    if (keepSnapshots === undefined) return []
    return snapshots
      .filter(({ spec, status }) => {
        return spec.purpose === 'user' && spec.template === metadata.name && status.state === 'ready'
      })
      .sort(newestFirst)
      .slice(keepSnapshots)
  })
}

/** Deletes one whose time has come. False: something stands on it, or somebody is at work on it. */
export async function retire(context: Context, { metadata: { name } }: Snapshot, reason: string): Promise<boolean> {
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
  const { records } = context
  const found = await records.find('Template', template)
  if (found?.spec.keepSnapshots === undefined) return
  for (const snapshot of overKept([found], await records.list('Snapshot')))
    await retire(context, snapshot, `template ${template} keeps ${found.spec.keepSnapshots}`)
}

/** Deletes snapshots when their time is over, those of all projects. The time stands in the resource, and survives a restart. */
export function snapshotAlarm(context: Context): Alarm {
  const later = new Map<string, number>()
  const look = async () => {
    const now = Date.now()
    let nearest: number | undefined
    const at = (time: number) => {
      nearest = Math.min(time, nearest ?? Number.POSITIVE_INFINITY)
    }
    const snapshots = await context.records.listEverywhere('Snapshot')
    const there = new Set(snapshots.map(({ metadata }) => metadata.name))
    for (const name of later.keys()) if (!there.has(name)) later.delete(name)
    for (const snapshot of snapshots) {
      const { metadata, spec, status } = snapshot
      if (spec.expiresAt === undefined || spec.purpose !== 'user' || status.state === 'deleting') continue
      const due = Math.max(Date.parse(spec.expiresAt), later.get(metadata.name) ?? 0)
      if (due > now) {
        at(due)
        continue
      }
      later.set(metadata.name, now + RETRY_MS)
      at(now + RETRY_MS)
      const reason = `it was to be kept until ${spec.expiresAt}`
      retire(context.project(metadata.namespace), snapshot, reason).catch((error) =>
        context.log('error', 'snapshot.retire.failed', {
          snapshot: metadata.name,
          error: IceboxError.from(error).message,
        }),
      )
    }
    return nearest
  }
  return new Alarm(look, context.log, context.stopping)
}
