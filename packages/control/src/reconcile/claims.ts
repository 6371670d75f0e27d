import { IceboxError, type SnapshotId, type SnapshotInfo } from '@icebox/model'
import { isClaimed } from '../collect/forgotten.ts'
import { type Context, DEADLINES, within } from '../context.ts'

const MIB = 2 ** 20

/** What is here, and of what of it no record says anything. */
export interface Unclaimed {
  /** All snapshots on the disk. */
  present: readonly SnapshotId[]
  snapshots: readonly SnapshotInfo[]
  machines: readonly string[]
}

/**
 * Looks for what no record claims before anything is changed. Every snapshot has a record in some state before its bytes are
 * there and until they are gone, whatever is interrupted: one without a record was made with another database, as when that is missing
 * or an older copy was put back. A machine may lose its record to a crash, and says so only where there are no records at all.
 * Throws InvalidState, which tells what was found, unless `forget`.
 */
export async function findUnclaimed(context: Context, { forget }: { forget: boolean }): Promise<Unclaimed> {
  const { cache, node } = context
  const call = () => within(context, DEADLINES.call)
  const snapshots: SnapshotInfo[] = []
  const present = await node.listSnapshots(call())
  for (const id of present) {
    if (isClaimed(cache, id)) continue
    const found = await node.findSnapshot(id, call())
    // Of one that is damaged nobody can say what it was.
    if (found !== undefined && found !== 'damaged') snapshots.push(found)
  }
  const machines = node
    .machines()
    .map(({ execution }) => String(execution))
    .filter((execution) => cache.all('Sandbox').first('execution', execution) === undefined)
  const isEmpty = (['Sandbox', 'Snapshot', 'Template'] as const).every((kind) => cache.all(kind).size === 0)
  const lost = snapshots.length > 0 || (isEmpty && machines.length > 0)
  const unclaimed = { present, snapshots, machines }
  if (lost && !forget) throw await refusal(context, unclaimed, isEmpty)
  return unclaimed
}

async function refusal(context: Context, { snapshots, machines }: Unclaimed, isEmpty: boolean): Promise<IceboxError> {
  const { cache, node } = context
  const here = await node.listImages(within(context, DEADLINES.call))
  const images = here.filter(({ digest }) => cache.all('Image').first('digest', digest) === undefined)
  const taken = snapshots.map(({ createdAt }) => createdAt).sort()
  const bytes = snapshots.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0)
  const found = [
    ...(snapshots.length === 0
      ? []
      : [
          `${counted(snapshots.length, 'snapshot')} (${Math.ceil(bytes / MIB)} MiB, taken from ${taken.at(0)} to ${taken.at(-1)}; such as ${snapshots[0]?.id})`,
        ]),
    ...(machines.length === 0 ? [] : [counted(machines.length, 'running machine')]),
    ...(images.length === 0 ? [] : [counted(images.length, 'image')]),
  ]
  const why = isEmpty ? 'has no records: it is missing' : 'is older than they are'
  return new IceboxError(
    'InvalidState',
    `the data directory holds ${found.join(', ')} that no record claims, so its database icebox.db ${why}; nothing was changed`,
    {
      remedy:
        'Put the icebox.db that belongs to this data directory back and start again. To go on without what it described, start once with `icebox up --forget`: that deletes these snapshots and ends these machines.',
      details: { snapshots: snapshots.length, machines: machines.length, images: images.length },
    },
  )
}

const counted = (count: number, what: string): string => `${count} ${what}${count === 1 ? '' : 's'}`
