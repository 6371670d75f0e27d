import { IceboxError, type Sandbox } from '@icebox/model'
import { type Context, DEADLINES, within } from '../context.ts'
import type { Accepted, Sandboxes } from '../control.ts'
import type { Expiry } from '../expiry.ts'
import { caughtUp } from '../logs/collect.ts'
import { Names } from '../names.ts'
import { resolveRef } from '../records.ts'
import { resolveSnapshot } from '../snapshots/resolve.ts'
import { admit, birthOf, expiry } from './create.ts'
import { beginDelete } from './delete.ts'
import { forkSandbox } from './fork.ts'
import { beginPause } from './pause.ts'
import { reach } from './reach.ts'
import { beginResume, beginRollback } from './restore.ts'

/** By id, name or unique prefix. */
export const resolveSandbox = (context: Context, ref: string): Promise<Sandbox> =>
  resolveRef(context.records, 'Sandbox', ref, (sandbox) => [sandbox.spec.displayName])

export function sandboxService(context: Context, expiries: Expiry): Sandboxes {
  const { records, operations, node } = context
  const names = new Names('sandbox', async (name) =>
    (await records.list('Sandbox')).some(({ spec }) => spec.displayName === name),
  )

  const running = async (ref: string) => reach(context, await resolveSandbox(context, ref))

  /** Resolves the reference, then begins or joins the operation. */
  const operate = async (ref: string, verb: string, begin: (name: string) => Promise<Accepted<Sandbox>>) => {
    const { name } = (await resolveSandbox(context, ref)).metadata
    return operations.exclusive(name, verb, () => begin(name))
  }

  return {
    async create(body, signal) {
      const accepted = await names.reserve(body.name, async () => admit(context, await birthOf(context, body, signal)))
      if (accepted.resource.spec.expiresAt !== undefined) expiries.changed()
      return accepted
    },
    get: (ref) => resolveSandbox(context, ref),
    async list({ states, metadata }) {
      const wanted = Object.entries(metadata ?? {})
      return (await records.list('Sandbox'))
        .filter(({ status }) => states === undefined || states.length === 0 || states.includes(status.state))
        .filter(({ spec }) => wanted.every(([key, value]) => spec.metadata[key] === value))
        .sort(newestFirst)
    },
    async pause(ref) {
      const sandbox = await resolveSandbox(context, ref)
      const { name } = sandbox.metadata
      if (sandbox.status.state === 'paused' && !operations.isBusy(name))
        return { resource: sandbox, settled: Promise.resolve(sandbox) }
      return operations.exclusive(name, 'pause', () => beginPause(context, name))
    },
    async resume(ref) {
      const sandbox = await resolveSandbox(context, ref)
      const { name } = sandbox.metadata
      if (sandbox.status.state === 'running' && !operations.isBusy(name))
        return { resource: sandbox, settled: Promise.resolve(sandbox) }
      return operations.exclusive(name, 'resume', () => beginResume(context, name))
    },
    async rollback(ref, snapshotRef) {
      const snapshot = await resolveSnapshot(context, snapshotRef)
      return operate(ref, `roll back to ${snapshot.metadata.name}`, (name) =>
        beginRollback(context, name, snapshot.metadata.name),
      )
    },
    async delete(ref) {
      const { name } = (await resolveSandbox(context, ref)).metadata
      return operations.exclusiveInTurn(name, 'delete', () => beginDelete(context, name))
    },
    async renew(ref, body) {
      const { name } = (await resolveSandbox(context, ref)).metadata
      if ('expiresAt' in body && Date.parse(body.expiresAt) <= Date.now()) {
        throw new IceboxError('InvalidArgument', `expiresAt: ${body.expiresAt} is not in the future`)
      }
      const next = 'expiresAt' in body ? { expiresAt: new Date(body.expiresAt).toISOString() } : expiry(body.timeout)
      const renewed = await records.setSpec('Sandbox', name, ({ spec: { expiresAt: _present, ...spec } }) => ({
        ...spec,
        ...next,
      }))
      expiries.changed()
      return renewed
    },
    async patchMetadata(ref, patch) {
      const { name } = (await resolveSandbox(context, ref)).metadata
      return records.setSpec('Sandbox', name, ({ spec }) => {
        const merged = Object.entries({ ...spec.metadata, ...patch }).filter(
          (entry): entry is [string, string] => entry[1] !== null,
        )
        return { ...spec, metadata: Object.fromEntries(merged) }
      })
    },
    async fork(ref, body) {
      const children = await forkSandbox(context, await resolveSandbox(context, ref), body)
      expiries.changed()
      return children
    },
    guest: async (ref) => (await running(ref)).guest,
    exec: async (ref, request, signal) => (await running(ref)).guest.exec(request, signal),
    async stats(ref, signal) {
      const { sandbox, execution, guest } = await running(ref)
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

/** Newest first; equal times in the order of their names, so that pages do not shift. */
export function newestFirst(
  a: { metadata: { createdAt: string; name: string } },
  b: { metadata: { createdAt: string; name: string } },
): number {
  if (a.metadata.createdAt !== b.metadata.createdAt) return a.metadata.createdAt < b.metadata.createdAt ? 1 : -1
  return a.metadata.name < b.metadata.name ? -1 : 1
}
