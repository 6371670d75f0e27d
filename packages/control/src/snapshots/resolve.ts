import type { Snapshot } from '@icebox/model'
import type { SnapshotSummary } from '../cache/summary.ts'
import type { Context } from '../context.ts'
import { newestFirst } from '../page.ts'
import { resolveRef } from '../records.ts'

const isReady = ({ state }: SnapshotSummary): boolean => state === 'ready'

/** By id, by `name` or `name:tag` (the newest that is ready, when several have it), or by unique prefix of an id. */
export async function resolveSnapshot(context: Context, ref: string): Promise<Snapshot> {
  const { records } = context
  const exact = await records.find('Snapshot', ref)
  if (exact !== undefined) return exact
  const named = [...records.of('Snapshot').where('label', ref)]
  const [first] = named.sort((a, b) => Number(isReady(b)) - Number(isReady(a)) || newestFirst(a, b))
  return resolveRef(records, 'Snapshot', ref, first === undefined ? [] : [first])
}
