import {
  asExecutionId,
  asSnapshotId,
  type CreateSnapshot,
  canSnapshot,
  DEFAULT_TAG,
  IceboxError,
  isError,
  newSnapshotId,
  type Snapshot,
} from '@icebox/model'
import { type Context, DEADLINES, within } from '../context.ts'
import type { Accepted, Sandboxes, Snapshots } from '../control.ts'
import { recordImage } from '../images/ensure.ts'
import { Names } from '../names.ts'
import { newestFirst } from '../page.ts'
import { resolveSandbox } from '../sandboxes/service.ts'
import { named } from '../telemetry/telemetry.ts'
import { addTags, inTurn, labelOf, labelsOf, takeTags, withoutTags } from './names.ts'
import { dropSnapshot } from './remove.ts'
import { resolveSnapshot } from './resolve.ts'
import { saveBytes, specOf } from './save.ts'

const now = () => new Date().toISOString()

export function snapshotService(context: Context, sandboxes: Sandboxes): Snapshots {
  const { records, operations, node } = context

  const names = new Names('snapshot', async (label) =>
    (await records.list('Snapshot')).some((snapshot) => labelsOf(snapshot).includes(label)),
  )
  /** Keeps name and tags for the time of `work`, unless it is to take them from others anyway. */
  const reserve = <R>({ name, tags = [DEFAULT_TAG], replace }: CreateSnapshot, work: () => Promise<R>): Promise<R> =>
    name === undefined || replace === true
      ? work()
      : tags.reduceRight((inner, tag) => () => names.reserve(labelOf(name, tag), inner), work)()

  return {
    async create(sandboxRef, body) {
      if (body.name === undefined && body.tags !== undefined)
        throw new IceboxError('InvalidArgument', 'tags: a snapshot without a name can have no tags')
      const sandbox = await resolveSandbox(context, sandboxRef)
      const { name } = sandbox.metadata
      const { resource, settled } = await reserve(body, async () => {
        const intent = Promise.withResolvers<Snapshot>()
        const settled = operations.passing(name, 'snapshot', () => take(context, name, body, intent.resolve))
        settled.catch(intent.reject)
        return { resource: await intent.promise, settled }
      })
      if (!body.stop) return { resource, settled }
      return {
        resource,
        settled: settled.then(async (snapshot) => {
          await (await sandboxes.delete(name, within(context, DEADLINES.kill))).settled
          return snapshot
        }),
      }
    },
    get: (ref) => resolveSnapshot(context, ref),
    async list({ sandbox, name, states, hidden }) {
      const of =
        sandbox === undefined
          ? undefined
          : await resolveSandbox(context, sandbox).then(
              ({ metadata }) => metadata.name,
              () => sandbox,
            )
      return (await records.list('Snapshot'))
        .filter(({ spec }) => hidden === true || spec.purpose === 'user')
        .filter(({ spec }) => of === undefined || spec.sandbox === of)
        .filter(({ spec }) => name === undefined || spec.displayName === name)
        .filter(({ status }) => states === undefined || states.length === 0 || states.includes(status.state))
        .sort(newestFirst)
    },
    async delete(ref) {
      const { name } = (await resolveSnapshot(context, ref)).metadata
      return operations.exclusive(name, 'delete', () => beginDelete(context, name))
    },
    tag: async (ref, tags) => addTags(context, await resolveSnapshot(context, ref), tags),
    async untag(ref, tags) {
      const snapshot = await resolveSnapshot(context, ref)
      return inTurn(context, snapshot.spec.displayName ?? '', () => withoutTags(context, snapshot, tags))
    },
    async verify(ref, signal) {
      const snapshot = await resolveSnapshot(context, ref)
      return node.verifySnapshot(asSnapshotId(snapshot.metadata.name), AbortSignal.any([signal, context.closing]))
    },
    async exportTo(ref, file, progress, signal) {
      const snapshot = await resolveSnapshot(context, ref)
      if (snapshot.status.state !== 'ready')
        throw new IceboxError(
          'InvalidState',
          `snapshot ${snapshot.metadata.name} is ${snapshot.status.state}, not ready`,
        )
      await node.exportSnapshot(
        asSnapshotId(snapshot.metadata.name),
        file,
        progress,
        AbortSignal.any([signal, context.closing]),
      )
    },
    async importFrom(file, { name }, progress, signal) {
      return names.reserve(name, async () => {
        const id = newSnapshotId()
        const { snapshot, image } = await node.importSnapshot(
          id,
          file,
          progress,
          AbortSignal.any([signal, context.closing]),
        )
        await recordImage(context, image)
        return records.create('Snapshot', id, {
          spec: {
            kind: snapshot.kind,
            ...(name === undefined ? {} : { displayName: name }),
            sandbox: '',
            execution: '',
            imageName: image.digest.slice(image.digest.indexOf(':') + 1),
            size: snapshot.size,
            env: snapshot.env,
            purpose: 'user',
          },
          status: { state: 'ready', lastTransitionAt: now(), sizeBytes: snapshot.sizeBytes },
        })
      })
    },
  }
}

/** Writes the intent, which it gives out, and takes a snapshot of the sandbox, which runs on. */
async function take(
  context: Context,
  name: string,
  wanted: CreateSnapshot,
  intended: (intent: Snapshot) => void,
): Promise<Snapshot> {
  const { records } = context
  const id = newSnapshotId()
  const sandbox = await records.get('Sandbox', name)
  const { state, execution } = sandbox.status
  if (!canSnapshot(state) || execution === undefined)
    throw new IceboxError('InvalidState', `cannot take a snapshot of ${name}: it is ${state}`)
  const { name: displayName, tags } = wanted
  const spec = specOf(sandbox, execution, { kind: wanted.kind, purpose: 'user', displayName, tags })
  intended(await records.create('Snapshot', id, { spec, status: { state: 'creating', lastTransitionAt: now() } }))
  try {
    return await context.telemetry.operation('snapshot', named(sandbox), async (note) => {
      const saved = await saveBytes(context, asExecutionId(execution), id, spec, note)
      const settle = () => records.setStatus('Snapshot', id, () => ({ state: 'ready', ...saved }))
      const ready =
        displayName === undefined || wanted.replace !== true
          ? await settle()
          : await replacing(context, displayName, id, tags ?? [DEFAULT_TAG], settle)
      await records.setStatus('Sandbox', name, ({ status }) => ({ ...status, lastSnapshot: id }))
      return ready
    })
  } catch (error) {
    const failure = IceboxError.from(error)
    await records.setStatus('Snapshot', id, () => ({
      state: 'failed',
      reason: 'snapshot_capture_failed',
      message: failure.message,
    }))
    throw failure
  }
}

/** Lets a snapshot become ready and take its tags from those that have them; one that has none left goes. */
async function replacing(
  context: Context,
  name: string,
  id: string,
  tags: readonly string[],
  settle: () => Promise<Snapshot>,
): Promise<Snapshot> {
  return inTurn(context, name, async () => {
    const ready = await settle()
    for (const { metadata } of await takeTags(context, name, id, tags))
      try {
        const deleting = () => beginDelete(context, metadata.name)
        await (await context.operations.exclusive(metadata.name, 'delete', deleting)).settled
      } catch (error) {
        // It is being restored from, or about to go already: then it stays, without a tag, until it is deleted by its id.
        if (!isError(error, 'InUse', 'Conflict', 'NotFound')) throw error
      }
    return ready
  })
}

/** Throws `InUse` when something stands on the snapshot; else writes the intent to delete it. */
async function beginDelete(context: Context, name: string): Promise<Accepted<Snapshot>> {
  const { records } = context
  const snapshot = await records.get('Snapshot', name)
  if (snapshot.status.state === 'creating') throw new IceboxError('Conflict', `snapshot ${name} is still being taken`)
  const template = (await records.list('Template')).find(({ status }) => status.snapshot === name)
  if (template !== undefined) {
    throw new IceboxError('InUse', `snapshot ${name} belongs to template ${template.metadata.name}`, {
      remedy: `Delete the template instead: \`icebox template delete ${template.metadata.name}\`.`,
    })
  }
  const sandbox = (await records.list('Sandbox')).find(
    ({ status }) => status.operation?.snapshot === name || status.pausedIn === name,
  )
  if (sandbox !== undefined) {
    throw new IceboxError(
      'InUse',
      `snapshot ${name} holds sandbox ${sandbox.metadata.name}, which is ${sandbox.status.state}`,
    )
  }
  const resource = await records.setStatus('Snapshot', name, ({ status }) => ({ ...status, state: 'deleting' }))
  return { resource, settled: finishSnapshotDelete(context, resource) }
}

/** Its children in the tree get its parent; a sandbox whose newest snapshot it was, likewise. */
export async function finishSnapshotDelete(context: Context, snapshot: Snapshot): Promise<Snapshot> {
  const { records } = context
  const { name } = snapshot.metadata
  const { parent } = snapshot.spec
  for (const child of await records.list('Snapshot')) {
    if (child.spec.parent !== name) continue
    await records.setSpec('Snapshot', child.metadata.name, ({ spec: { parent: _gone, ...spec } }) => ({
      ...spec,
      ...(parent === undefined ? {} : { parent }),
    }))
  }
  for (const sandbox of await records.list('Sandbox')) {
    if (sandbox.status.lastSnapshot !== name) continue
    await records.setStatus('Sandbox', sandbox.metadata.name, ({ status: { lastSnapshot: _gone, ...status } }) => ({
      ...status,
      ...(parent === undefined ? {} : { lastSnapshot: parent }),
    }))
  }
  await dropSnapshot(context, name)
  context.log('info', 'snapshot.deleted', { snapshot: name })
  return snapshot
}
