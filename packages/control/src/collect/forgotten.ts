import type { Sandbox, Snapshot, Template } from '@icebox/model'

/** What holds hidden snapshots. */
export interface Holders {
  sandboxes: readonly Sandbox[]
  templates: readonly Template[]
}

/**
 * Hidden snapshots go with what they belong to. These are the ones that a crash parted from it: the pause before the last, a
 * template's of a build that was not finished, a fork's whose children have all settled.
 */
export function forgotten(snapshots: readonly Snapshot[], { sandboxes, templates }: Holders): Snapshot[] {
  const held = new Set<string | undefined>()
  for (const { status } of sandboxes) held.add(status.pausedIn).add(status.operation?.snapshot)
  for (const { status } of templates) held.add(status.snapshot)
  return snapshots.filter(({ metadata, spec }) => spec.purpose !== 'user' && !held.has(metadata.name))
}

/** What is on the disk and in no record, and is not being written by a sandbox. */
export function unclaimed<I extends { id: string }>(
  present: readonly I[],
  snapshots: readonly Snapshot[],
  sandboxes: readonly Sandbox[],
): I[] {
  const known = new Set<string | undefined>(snapshots.map(({ metadata }) => metadata.name))
  for (const { status } of sandboxes) known.add(status.operation?.snapshot)
  return present.filter(({ id }) => !known.has(id))
}
