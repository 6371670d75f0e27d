import {
  asExecutionId,
  asSandboxId,
  canSnapshot,
  type ForkSandbox,
  IceboxError,
  newSandboxId,
  newSnapshotId,
  type Sandbox,
} from '@icebox/model'
import { requireBounded, requireRecords } from '../bounds.ts'
import type { Context } from '../context.ts'
import { dropSnapshot } from '../snapshots/remove.ts'
import { saveHidden, specOf } from '../snapshots/save.ts'
import { type Noted, named } from '../telemetry/telemetry.ts'
import { admit, type Birth, type Settings } from './create.ts'
import { discardFailed } from './delete.ts'

/**
 * One snapshot of the running sandbox and `count` restores of it under new ids. The source keeps running. The snapshot
 * goes once every child has settled; after a crash the reconciler finishes the children and removes it.
 */
export function forkSandbox(
  context: Context,
  source: Sandbox,
  body: ForkSandbox,
): Promise<({ sandbox: Sandbox } | { error: IceboxError })[]> {
  return context.telemetry.operation('fork', { ...named(source), count: body.count }, (note) =>
    fork(context, source, body, note),
  )
}

async function fork(
  context: Context,
  source: Sandbox,
  body: ForkSandbox,
  note: (facts: Noted) => void,
): Promise<({ sandbox: Sandbox } | { error: IceboxError })[]> {
  const { name, namespace } = source.metadata
  const { forks } = context.admission.limits
  if (body.count > forks)
    throw new IceboxError('TooManyRequests', `a fork makes at most ${forks} sandboxes here, not ${body.count}`, {
      remedy: 'Fork in several calls, or have the limit raised.',
      details: { limit: 'forks' },
    })
  requireRecords(context, 'Sandbox', body.count)
  const env = { ...source.spec.env, ...body.env }
  requireBounded({ env, metadata: body.metadata })
  const snapshot = newSnapshotId()
  const save = () =>
    context.operations.passing(name, 'fork', async () => {
      const present = await context.records.get('Sandbox', name)
      if (!canSnapshot(present.status.state) || present.status.execution === undefined) {
        throw new IceboxError('InvalidState', `cannot fork ${name}: it is ${present.status.state}`)
      }
      const run = asExecutionId(present.status.execution)
      const spec = specOf(present, run, { kind: 'memory', purpose: 'fork' })
      await saveHidden(context, run, snapshot, spec, note)
    })
  try {
    const birth: Birth = {
      source: { from: 'fork', sandbox: name, snapshot },
      origin: source.spec.origin,
      snapshot,
      size: source.spec.size,
      env,
      entrypoint: source.spec.entrypoint,
      metadata: body.metadata ?? source.spec.metadata,
      timeoutSeconds: body.timeout,
      settings: settingsFrom(source),
    }
    const ids = Array.from({ length: body.count }, newSandboxId)
    const settled = await context.admission.startAfter(namespace, ids, save, async (id, turn) => {
      const { resource, settled } = await admit(context, birth, { id: asSandboxId(id), turn })
      return { resource, settled: settled.catch((error) => withoutRemains(context, resource, error)) }
    })
    const children = settled.map((child) =>
      child.status === 'fulfilled' ? { sandbox: child.value } : { error: IceboxError.from(child.reason) },
    )
    note({ failed: children.filter((child) => 'error' in child).length })
    return children
  } finally {
    context.operations.afterwards(forkSettled(context, snapshot))
  }
}

/** Whoever is told of a child's failure never learns its id: nothing may be left under it. */
async function withoutRemains(context: Context, child: Sandbox, failure: unknown): Promise<never> {
  await discardFailed(context, child.metadata).catch((error) =>
    context.log('warn', 'fork.child.discard.failed', {
      sandbox: child.metadata.name,
      error: IceboxError.from(error).message,
    }),
  )
  throw failure
}

function settingsFrom({ spec }: Sandbox): Settings {
  const { onTimeout, pauseKind, autoResume, secure, publicTraffic, network } = spec
  return { onTimeout, pauseKind, autoResume, secure, publicTraffic, ...(network === undefined ? {} : { network }) }
}

/** Removes a fork's snapshot unless a child is still to be restored from it. */
export async function removeForkSnapshot(context: Context, snapshot: string): Promise<void> {
  const isWaitedFor = context.records.of('Sandbox').first('restores', snapshot) !== undefined
  if (!isWaitedFor && !context.closing.aborted) await dropSnapshot(context, snapshot)
}

/** The same, after children have settled; a failure is logged, and the next start tries again. */
export async function forkSettled(context: Context, snapshot: string): Promise<void> {
  await removeForkSnapshot(context, snapshot).catch((error) =>
    context.log('warn', 'snapshot.drop.failed', { snapshot, error: IceboxError.from(error).message }),
  )
}
