import { IceboxError, newSandboxId, type Sandbox, type SandboxId } from '@icebox/model'
import { requireBounded, requireRecords } from '../bounds.ts'
import { MANY_PAIRS } from '../cache/collection.ts'
import { Ordered } from '../cache/ordered.ts'
import { pairOf, type SandboxSummary } from '../cache/summary.ts'
import { type Context, DEADLINES, within } from '../context.ts'
import type { Accepted, Sandboxes } from '../control.ts'
import { caughtUp } from '../logs/collect.ts'
import { Names } from '../names.ts'
import { oldestFirst, slice } from '../page.ts'
import { type Records, resolveRef } from '../records.ts'
import { resolveSnapshot } from '../snapshots/resolve.ts'
import { connect } from './connect.ts'
import { admit, birthOf } from './create.ts'
import { beginDelete, discardFailed } from './delete.ts'
import { forkSandbox } from './fork.ts'
import { pauseByHand } from './pause.ts'
import { reach } from './reach.ts'
import { type Request, Requests } from './request.ts'
import { beginRollback, resumeInTurn } from './restore.ts'
import { renew } from './time.ts'

/** By id, name or unique prefix. */
export const resolveSandbox = (context: Context, ref: string): Promise<Sandbox> =>
  resolveRef(context.records, 'Sandbox', ref, context.records.of('Sandbox').where('displayName', ref))

/** Those that have all of the metadata. */
async function withMetadata(
  records: Records,
  wanted: readonly (readonly [string, string])[],
): Promise<Ordered<SandboxSummary>> {
  const all = records.of('Sandbox')
  const pairs = wanted.map(([key, value]) => pairOf(key, value))
  const [rarest] = pairs.map((pair) => all.where('metadata', pair)).sort((a, b) => a.size - b.size)
  const found = [...(rarest ?? [])].filter((sandbox) => pairs.every((pair) => sandbox.pairs?.includes(pair)))
  const others = await records.read('Sandbox', all.where('metadata', MANY_PAIRS))
  const fitting = others.filter(({ spec }) => wanted.every(([key, value]) => spec.metadata[key] === value))
  for (const { metadata } of fitting) {
    const summary = all.first('name', metadata.name)
    if (summary !== undefined) found.push(summary)
  }
  return new Ordered(oldestFirst, found)
}

/** Creates of one project that are not written yet, with whatever key they were asked for. */
export interface Arrivals {
  requests: Requests
  names: Names
}
export const arrivalsOf = (context: Context): Arrivals => ({
  requests: new Requests(context),
  names: new Names('sandbox', (name) => context.records.of('Sandbox').first('displayName', name) !== undefined),
})

export function sandboxService(context: Context, { requests, names }: Arrivals): Sandboxes {
  const { admission, records, operations, node } = context

  const used = async (ref: string, signal: AbortSignal) =>
    reach(context, await resolveSandbox(context, ref), { wake: true }, signal)
  const lookedAt = async (ref: string, signal: AbortSignal) =>
    reach(context, await resolveSandbox(context, ref), { wake: false }, signal)

  /** Resolves the reference, then begins or joins the operation. */
  const operate = async (ref: string, verb: string, begin: (name: string) => Promise<Accepted<Sandbox>>) => {
    const { name } = (await resolveSandbox(context, ref)).metadata
    return operations.exclusive(name, verb, () => begin(name))
  }

  return {
    async create({ key, ...body }, signal) {
      requireRecords(context, 'Sandbox')
      const begin = async (id: SandboxId, request?: Request) => {
        // Before its turn: it may have to wait for the build of its template.
        const birth = await birthOf(context, body, signal)
        return admission.start(records.namespace, id, (turn) =>
          names.reserve(body.name, () => admit(context, birth, { id, request, turn })),
        )
      }
      return key === undefined ? begin(newSandboxId()) : requests.once(key, body, begin)
    },
    discard: ({ metadata }) => discardFailed(context, metadata),
    get: (ref) => resolveSandbox(context, ref),
    async list({ states = [], metadata = {}, origin, createdFrom }, page) {
      const from = createdFrom === undefined ? Number.NEGATIVE_INFINITY : Date.parse(createdFrom)
      const wanted = Object.entries(metadata)
      const all = wanted.length === 0 ? records.of('Sandbox').by('created') : await withMetadata(records, wanted)
      const isFiltered = states.length > 0 || origin !== undefined || createdFrom !== undefined
      const fits = (sandbox: SandboxSummary) =>
        (states.length === 0 || states.includes(sandbox.state)) &&
        (origin === undefined || sandbox.origin === origin) &&
        Date.parse(sandbox.createdAt) >= from
      return records.readSlice('Sandbox', slice(all, page, isFiltered ? fits : undefined))
    },
    async pause(ref, { kind = 'memory' }) {
      const { name } = (await resolveSandbox(context, ref)).metadata
      return pauseByHand(context, name, kind)
    },
    async resume(ref) {
      const { name } = (await resolveSandbox(context, ref)).metadata
      return resumeInTurn(context, name, { seconds: undefined })
    },
    async connect(ref, { timeout }, signal) {
      const { name } = (await resolveSandbox(context, ref)).metadata
      return connect(context, name, timeout, signal)
    },
    async rollback(ref, snapshotRef) {
      const snapshot = await resolveSnapshot(context, snapshotRef)
      return operate(ref, `roll back to ${snapshot.metadata.name}`, (name) =>
        admission.start(records.namespace, name, () => beginRollback(context, name, snapshot.metadata.name)),
      )
    },
    async delete(ref) {
      const { name } = (await resolveSandbox(context, ref)).metadata
      // One whose image is still to come waits for that: a create heeds this, everything else is soon over.
      operations.stop(name, new IceboxError('Conflict', `sandbox ${name} was deleted while it was being created`))
      return operations.exclusiveInTurn(name, 'delete', () => beginDelete(context, name))
    },
    async renew(ref, body) {
      const { name } = (await resolveSandbox(context, ref)).metadata
      return renew(context, name, body)
    },
    async update(ref, changes) {
      requireBounded(changes)
      const { name } = (await resolveSandbox(context, ref)).metadata
      return records.setSpec('Sandbox', name, ({ spec }) => ({ ...spec, ...changes }))
    },
    async patchMetadata(ref, patch) {
      const { name } = (await resolveSandbox(context, ref)).metadata
      return records.setSpec('Sandbox', name, ({ spec }) => {
        const merged = Object.entries({ ...spec.metadata, ...patch }).filter(
          (entry): entry is [string, string] => entry[1] !== null,
        )
        const kept = Object.fromEntries(merged)
        requireBounded({ metadata: kept })
        return { ...spec, metadata: kept }
      })
    },
    async fork(ref, body) {
      return forkSandbox(context, await resolveSandbox(context, ref), body)
    },
    guest: async (ref, signal) => (await used(ref, signal)).guest,
    exec: async (ref, request, signal) => (await used(ref, signal)).guest.exec(request, signal),
    async stats(ref, signal) {
      const { sandbox, execution, guest } = await lookedAt(ref, signal)
      const deadline = AbortSignal.any([signal, within(context, DEADLINES.call)])
      const [usage, inside] = await Promise.all([node.usage(execution, deadline), guest.metrics(deadline)])
      return { id: sandbox.metadata.name, ...usage, processes: inside.processes }
    },
    async logs(ref, { follow }, signal) {
      const sandbox = await resolveSandbox(context, ref)
      if (sandbox.status.state === 'running') await caughtUp(context, sandbox, signal)
      return context.logs.read(sandbox.metadata.name, { follow }, signal)
    },
  }
}
