import {
  type CreateSandbox,
  IceboxError,
  newExecutionId,
  newOperationId,
  type Sandbox,
  type SandboxId,
  type SandboxSpec,
  type Size,
} from '@icebox/model'
import { requireBounded } from '../bounds.ts'
import type { Context } from '../context.ts'
import type { Accepted } from '../control.ts'
import { resolveSnapshot } from '../snapshots/resolve.ts'
import type { Turn } from '../starts.ts'
import { readyTemplate } from '../templates/resolve.ts'
import { finishCreate } from './birth.ts'
import type { Request } from './request.ts'
import { sizeFromLimits } from './size.ts'
import { timeOf } from './time.ts'

const now = () => new Date().toISOString()

/** Entrypoint of what has no processes of its own: a snapshot of files alone. */
const IDLE = ['tail', '-f', '/dev/null']

/** What a new sandbox is made of, with everything resolved. */
export interface Birth {
  displayName?: string | undefined
  source: SandboxSpec['source']
  /** What its line began with. */
  origin?: string | undefined
  /** Id of the snapshot that is restored; of an image it is found or made once the intent is written. */
  snapshot?: string
  size: Size
  env: Record<string, string>
  entrypoint: string[]
  metadata: Record<string, string>
  timeoutSeconds?: number | null | undefined
  settings: Settings
}

/** What does not depend on what it is made of. */
export type Settings = Pick<
  SandboxSpec,
  'onTimeout' | 'pauseKind' | 'autoResume' | 'secure' | 'publicTraffic' | 'network'
>

/** Writes the intent of a new sandbox and begins to restore it. Throws `TooLarge` for more than may be kept. */
export async function admit(
  context: Context,
  birth: Birth,
  { id, request, turn }: { id: SandboxId; request?: Request | undefined; turn: Turn },
): Promise<Accepted<Sandbox>> {
  const { env, metadata, entrypoint, source, settings } = birth
  requireBounded({ env, metadata, entrypoint, source, network: settings.network })
  // In turn: what had this id before may be on its way out.
  return context.operations.exclusiveInTurn(id, 'create', async (stopping) => {
    const resource = await context.records.create('Sandbox', id, {
      spec: {
        ...(birth.displayName === undefined ? {} : { displayName: birth.displayName }),
        source: birth.source,
        ...(birth.origin === undefined ? {} : { origin: birth.origin }),
        size: birth.size,
        env: birth.env,
        entrypoint: birth.entrypoint,
        metadata: birth.metadata,
        ...timeOf(birth.timeoutSeconds),
        ...birth.settings,
        ...(request === undefined ? {} : { request }),
      },
      status: {
        state: 'creating',
        lastTransitionAt: now(),
        usage: { runningSeconds: 0 },
        operation: {
          id: newOperationId(),
          verb: 'create',
          startedAt: now(),
          ...(birth.snapshot === undefined ? {} : { snapshot: birth.snapshot }),
          execution: newExecutionId(),
        },
      },
    })
    context.expiry.at(resource.spec.expiresAt)
    return { resource, settled: finishCreate(context, resource, stopping, turn) }
  })
}

/** Throws `InvalidArgument` for what cannot be had together. */
function settingsOf(body: CreateSandbox): Settings {
  const { onTimeout = 'kill', pauseKind = 'memory', autoResume = false, secureAccess = true } = body
  const { secure = secureAccess, publicTraffic = !secureAccess } = body
  if (pauseKind === 'filesystem' && onTimeout !== 'pause')
    throw new IceboxError('InvalidArgument', 'pauseKind: filesystem is for sandboxes with onTimeout: pause')
  if (pauseKind === 'filesystem' && autoResume)
    throw new IceboxError(
      'InvalidArgument',
      'autoResume: what is paused with pauseKind: filesystem has lost its processes and is not resumed by who needs them',
    )
  const { network } = body
  return { onTimeout, pauseKind, autoResume, secure, publicTraffic, ...(network === undefined ? {} : { network }) }
}

/** Resolves what a create asks for: the snapshot to restore, and what the sandbox inherits from it. */
export async function birthOf(context: Context, body: CreateSandbox, signal: AbortSignal): Promise<Birth> {
  const { name: displayName, metadata, timeout: timeoutSeconds } = body
  const own = { displayName, metadata, timeoutSeconds, settings: settingsOf(body) }
  if (body.template !== undefined) {
    const template = await readyTemplate(context, body.template, signal)
    const { namespace } = template.metadata
    const snapshot = await context.project(namespace).records.get('Snapshot', template.status.snapshot ?? '')
    return {
      ...own,
      source: {
        from: 'template',
        template: template.metadata.name,
        ...(namespace === context.records.namespace ? {} : { project: namespace }),
      },
      origin: template.metadata.name,
      snapshot: snapshot.metadata.name,
      size: snapshot.spec.size,
      env: { ...snapshot.spec.env, ...body.env },
      entrypoint: body.entrypoint ?? [],
    }
  }
  if (body.snapshotId !== undefined) {
    const snapshot = await resolveSnapshot(context, body.snapshotId)
    if (snapshot.status.state !== 'ready') {
      throw new IceboxError('InvalidState', `snapshot ${snapshot.metadata.name} is ${snapshot.status.state}, not ready`)
    }
    return {
      ...own,
      source: { from: 'snapshot', snapshot: snapshot.metadata.name },
      origin: snapshot.spec.displayName ?? snapshot.metadata.name,
      snapshot: snapshot.metadata.name,
      size: snapshot.spec.size,
      env: { ...snapshot.spec.env, ...body.env },
      entrypoint: body.entrypoint ?? (snapshot.spec.kind === 'memory' ? [] : IDLE),
    }
  }
  if (body.image !== undefined) {
    return {
      ...own,
      source: {
        from: 'image',
        image: body.image.uri,
        ...(context.byInstallation ? { byInstallation: true } : {}),
      },
      origin: body.image.uri,
      size: sizeFromLimits(body.resourceLimits ?? {}),
      env: body.env,
      entrypoint: body.entrypoint ?? [],
    }
  }
  throw new IceboxError('InvalidArgument', 'give exactly one of template, image and snapshotId')
}
