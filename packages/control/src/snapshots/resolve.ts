import type { Snapshot } from '@icebox/model'
import type { Context } from '../context.ts'
import { resolveRef } from '../records.ts'

/** By id, name or unique prefix. */
export const resolveSnapshot = (context: Context, ref: string): Promise<Snapshot> =>
  resolveRef(context.records, 'Snapshot', ref, (snapshot) => [snapshot.spec.displayName])
