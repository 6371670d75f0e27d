import { DEFAULT_TAG, IceboxError, type Snapshot } from '@icebox/model'
import { requireBounded } from '../bounds.ts'
import type { Context } from '../context.ts'

const tagsOf = ({ spec }: Snapshot): readonly string[] => spec.tags ?? [DEFAULT_TAG]

/** What a name and a tag are called by. */
export const labelOf = (name: string, tag: string): string => (tag === DEFAULT_TAG ? name : `${name}:${tag}`)

/** What a snapshot is called by, besides its id. */
export function labelsOf(snapshot: Snapshot): string[] {
  const { displayName } = snapshot.spec
  if (displayName === undefined) return []
  return tagsOf(snapshot).flatMap((tag) => [...new Set([labelOf(displayName, tag), `${displayName}:${tag}`])])
}

/** Writes to snapshots of one name happen one after the other: of two that take a tag, one is the last. */
export const inTurn = <R>(context: Context, name: string, work: () => Promise<R>): Promise<R> =>
  context.operations.passing(`snapshots named ${context.records.namespace}/${name}`, 'name', work)

/** Takes the tags from all others of the name that are ready; gives those that have none left. */
export async function takeTags(
  context: Context,
  name: string,
  id: string,
  tags: readonly string[],
): Promise<Snapshot[]> {
  const { records } = context
  const left: Snapshot[] = []
  for (const other of await records.read('Snapshot', records.of('Snapshot').where('displayName', name))) {
    if (other.metadata.name === id || other.status.state !== 'ready') continue
    if (!tagsOf(other).some((tag) => tags.includes(tag))) continue
    const changed = await withoutTags(context, other, tags)
    if (tagsOf(changed).length === 0) left.push(changed)
  }
  return left
}

export const withoutTags = (context: Context, { metadata }: Snapshot, tags: readonly string[]): Promise<Snapshot> =>
  context.records.setSpec('Snapshot', metadata.name, (present) => ({
    ...present.spec,
    tags: tagsOf(present).filter((tag) => !tags.includes(tag)),
  }))

/** Adds the tags, which no other of the name has from here on. Throws `InvalidArgument` for a snapshot without a name. */
export async function addTags(
  context: Context,
  { metadata, spec }: Snapshot,
  tags: readonly string[],
): Promise<Snapshot> {
  const { name } = metadata
  const { displayName } = spec
  if (displayName === undefined)
    throw new IceboxError('InvalidArgument', `snapshot ${name} has no name, and so can have no tags`)
  return inTurn(context, displayName, async () => {
    const tagged = await context.records.setSpec('Snapshot', name, (present) => {
      const all = [...new Set([...tagsOf(present), ...tags])]
      requireBounded({ tags: all })
      return { ...present.spec, tags: all }
    })
    await takeTags(context, displayName, name, tags)
    return tagged
  })
}
