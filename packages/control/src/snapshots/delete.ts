import { IceboxError, isError, type Snapshot } from '@icebox/model'
import type { Context } from '../context.ts'
import type { Accepted } from '../control.ts'
import { dropSnapshot } from './remove.ts'

/** Throws `InUse` when something stands on the snapshot; else writes the intent to delete it. */
export async function beginDelete(context: Context, name: string): Promise<Accepted<Snapshot>> {
  await requireUnused(context, name)
  const resource = await context.records.setStatus('Snapshot', name, ({ status }) => ({ ...status, state: 'deleting' }))
  return { resource, settled: finishSnapshotDelete(context, resource) }
}

/** Throws `InUse` when something stands on the snapshot, `Conflict` while it is being taken. */
export async function requireUnused({ records }: Context, name: string): Promise<void> {
  const snapshot = await records.get('Snapshot', name)
  if (snapshot.status.state === 'creating') throw new IceboxError('Conflict', `snapshot ${name} is still being taken`)
  const template = records.of('Template').first('snapshot', name)
  if (template !== undefined) {
    throw new IceboxError('InUse', `snapshot ${name} belongs to template ${template.name}`, {
      remedy: `Delete the template instead: \`icebox template delete ${template.name}\`.`,
    })
  }
  const sandbox = records.of('Sandbox').first('holds', name)
  if (sandbox !== undefined)
    throw new IceboxError('InUse', `snapshot ${name} holds sandbox ${sandbox.name}, which is ${sandbox.state}`)
}

/** Its children in the tree get its parent; a sandbox whose newest snapshot it was, likewise. */
export async function finishSnapshotDelete(context: Context, snapshot: Snapshot): Promise<Snapshot> {
  const { records } = context
  const { name } = snapshot.metadata
  const { parent } = snapshot.spec
  for (const child of [...records.of('Snapshot').where('parent', name)]) {
    const adopted = records.setSpec('Snapshot', child.name, ({ spec: { parent: _gone, ...spec } }) => ({
      ...spec,
      ...(parent === undefined ? {} : { parent }),
    }))
    await unlessGone(adopted)
  }
  for (const sandbox of [...records.of('Sandbox').where('lastSnapshot', name)]) {
    const changed = records.setStatus('Sandbox', sandbox.name, ({ status: { lastSnapshot: _gone, ...status } }) => ({
      ...status,
      ...(parent === undefined ? {} : { lastSnapshot: parent }),
    }))
    await unlessGone(changed)
  }
  await dropSnapshot(context, name)
  context.log('info', 'snapshot.deleted', { snapshot: name })
  return snapshot
}

/** What was to be changed may be on its way out, too. */
async function unlessGone(change: Promise<unknown>): Promise<void> {
  try {
    await change
  } catch (error) {
    if (!isError(error, 'NotFound')) throw error
  }
}
