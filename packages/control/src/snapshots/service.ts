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
import type { Alarm } from '../alarm.ts'
import { requireBounded, requireRecords } from '../bounds.ts'
import { Ordered } from '../cache/ordered.ts'
import type { SnapshotSummary } from '../cache/summary.ts'
import { type Context, DEADLINES, within } from '../context.ts'
import type { Sandboxes, Snapshots } from '../control.ts'
import { recordImage } from '../images/ensure.ts'
import { Names } from '../names.ts'
import { oldestFirst, slice } from '../page.ts'
import { resolveSandbox } from '../sandboxes/service.ts'
import { named } from '../telemetry/telemetry.ts'
import { beginDelete } from './delete.ts'
import { addTags, inTurn, labelOf, takeTags, withoutTags } from './names.ts'
import { requireSnapshotBytes } from './quota.ts'
import { dropSnapshot } from './remove.ts'
import { resolveSnapshot } from './resolve.ts'
import { retireOverKept } from './retention.ts'
import { saveBytes, specOf } from './save.ts'

const now = () => new Date().toISOString()

export function snapshotService(context: Context, sandboxes: Sandboxes, expiries: Alarm): Snapshots {
  const { records, operations, node, transfers } = context

  const names = new Names('snapshot', (label) => records.of('Snapshot').first('label', label) !== undefined)
  /** Keeps name and tags for the time of `work`, unless it is to take them from others anyway. */
  const reserve = <R>({ name, tags = [DEFAULT_TAG], replace }: CreateSnapshot, work: () => Promise<R>): Promise<R> =>
    name === undefined || replace === true
      ? work()
      : tags.reduceRight((inner, tag) => () => names.reserve(labelOf(name, tag), inner), work)()

  /** The snapshot is there whether or not an older one could go: the next one, or a collect, tries again. */
  const prune = (template: string) =>
    retireOverKept(context, template).catch((error) =>
      context.log('error', 'snapshot.retire.failed', { template, error: IceboxError.from(error).message }),
    )

  return {
    async create(sandboxRef, body) {
      if (body.name === undefined && body.tags !== undefined)
        throw new IceboxError('InvalidArgument', 'tags: a snapshot without a name can have no tags')
      if (body.expiresAt !== undefined && Date.parse(body.expiresAt) <= Date.now())
        throw new IceboxError('InvalidArgument', `expiresAt: ${body.expiresAt} is not in the future`)
      requireBounded({ tags: body.tags })
      requireRecords(context, 'Snapshot')
      requireSnapshotBytes(context)
      const sandbox = await resolveSandbox(context, sandboxRef)
      const { name } = sandbox.metadata
      const { resource, settled } = await reserve(body, async () => {
        const intent = Promise.withResolvers<Snapshot>()
        const settled = operations.passing(name, 'snapshot', () => take(context, name, body, intent.resolve))
        settled.then(
          ({ spec: { template } }) => {
            expiries.changed()
            if (template !== undefined) operations.afterwards(prune(template))
          },
          (error) => intent.reject(error),
        )
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
    async list({ sandbox, name, tag, states = [], hidden = false }, page) {
      const of =
        sandbox === undefined
          ? undefined
          : await resolveSandbox(context, sandbox).then(
              ({ metadata }) => metadata.name,
              () => sandbox,
            )
      const isFiltered = sandbox !== undefined || tag !== undefined || name !== undefined || states.length > 0
      const fits = (snapshot: SnapshotSummary) =>
        (of === undefined || snapshot.sandbox === of) &&
        (name === undefined || snapshot.displayName === name) &&
        (tag === undefined || snapshot.labels.includes(`${snapshot.displayName}:${tag}`)) &&
        (hidden || snapshot.purpose === 'user') &&
        (states.length === 0 || states.includes(snapshot.state))
      const own = records.of('Snapshot')
      const all =
        name === undefined
          ? own.by(hidden ? 'created' : 'taken')
          : new Ordered<SnapshotSummary>(oldestFirst, own.where('displayName', name))
      return records.readSlice('Snapshot', slice(all, page, isFiltered ? fits : undefined))
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
    enterTransfer: () => transfers.enter(records.namespace),
    async verify(ref, signal) {
      const snapshot = await resolveSnapshot(context, ref)
      const both = AbortSignal.any([signal, context.closing])
      const verify = () => node.verifySnapshot(asSnapshotId(snapshot.metadata.name), both)
      return transfers.inTurn(records.namespace, verify, both)
    },
    async exportTo(ref, file, progress, signal) {
      const snapshot = await resolveSnapshot(context, ref)
      if (snapshot.status.state !== 'ready')
        throw new IceboxError(
          'InvalidState',
          `snapshot ${snapshot.metadata.name} is ${snapshot.status.state}, not ready`,
        )
      const both = AbortSignal.any([signal, context.closing])
      const write = () => node.exportSnapshot(asSnapshotId(snapshot.metadata.name), file, progress, both)
      await transfers.inTurn(records.namespace, write, both)
    },
    async importFrom(file, { name }, progress, signal) {
      return names.reserve(name, async () => {
        requireRecords(context, 'Snapshot')
        requireSnapshotBytes(context)
        const id = newSnapshotId()
        const both = AbortSignal.any([signal, context.closing])
        // Held until it is written down: a collect finds bytes of nobody before that.
        return operations.passing(id, 'import', async () => {
          const accept: Parameters<typeof node.importSnapshot>[2] = async ({ kind, size, env }, image) => {
            const { metadata } = await recordImage(context, image)
            await records.create('Snapshot', id, {
              spec: {
                kind,
                ...(name === undefined ? {} : { displayName: name }),
                sandbox: '',
                execution: '',
                imageName: metadata.name,
                size,
                env,
                purpose: 'user',
              },
              status: { state: 'creating', lastTransitionAt: now() },
            })
          }
          try {
            const read = () => node.importSnapshot(id, file, accept, progress, both)
            const { sizeBytes } = await transfers.inTurn(records.namespace, read, both)
            return await records.setStatus('Snapshot', id, () => ({ state: 'ready', sizeBytes }))
          } catch (error) {
            await dropSnapshot(context, id).catch((trouble) =>
              context.log('warn', 'snapshot.drop.failed', { snapshot: id, error: IceboxError.from(trouble).message }),
            )
            throw error
          }
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
  const { kind, name: displayName, tags, expiresAt } = wanted
  const spec = specOf(sandbox, execution, { kind, purpose: 'user', displayName, tags, expiresAt })
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
    // What was saved well stays so, whatever failed after it.
    await records.setStatus('Snapshot', id, ({ status }) =>
      status.state === 'creating'
        ? { state: 'failed', reason: 'snapshot_capture_failed', message: failure.message }
        : undefined,
    )
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
