import type {
  ApiKey,
  ArtifactState,
  IceboxError,
  Image,
  Sandbox,
  SandboxState,
  Snapshot,
  Template,
  WIRE_ARTIFACT_STATES,
  WIRE_SANDBOX_STATES,
  WireApiKey,
  WireError,
  WireImage,
  WireSandbox,
  WireSnapshot,
  WireTemplate,
  WireUsage,
} from '@icebox/model'
import type { SandboxUsage } from './control.ts'
import { endOf } from './sandboxes/time.ts'

/** The one place where resources become the objects of the API. */

export const WIRE_STATE_OF_SANDBOX: Record<SandboxState, (typeof WIRE_SANDBOX_STATES)[number]> = {
  creating: 'Pending',
  running: 'Running',
  pausing: 'Pausing',
  paused: 'Paused',
  resuming: 'Resuming',
  deleting: 'Stopping',
  failed: 'Failed',
}
export const WIRE_STATE_OF_ARTIFACT: Record<ArtifactState, (typeof WIRE_ARTIFACT_STATES)[number]> = {
  creating: 'Creating',
  ready: 'Ready',
  deleting: 'Deleting',
  failed: 'Failed',
}

/** Leaves out the keys that are undefined: an absent fact has no key on the wire. */
function present<T extends object>(object: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]: Exclude<T[K], undefined>
  }
}

interface Settled<S> {
  state: S
  reason?: string | undefined
  message?: string | undefined
  lastTransitionAt: string
}
const wireStatus = <S extends string, W>(table: Record<S, W>, status: Settled<S>) =>
  present({
    state: table[status.state],
    reason: status.reason,
    message: status.message,
    lastTransitionAt: status.lastTransitionAt,
  })

export function wireSandbox(sandbox: Sandbox): WireSandbox {
  const { metadata, spec, status } = sandbox
  const { source } = spec
  return present({
    id: metadata.name,
    project: metadata.namespace,
    name: spec.displayName,
    template: source.from === 'template' ? source.template : undefined,
    snapshotId: source.from === 'snapshot' ? source.snapshot : undefined,
    image: source.from === 'image' ? { uri: source.image } : undefined,
    forkedFrom: source.from === 'fork' ? source.sandbox : undefined,
    status: wireStatus(WIRE_STATE_OF_SANDBOX, status),
    metadata: spec.metadata,
    entrypoint: spec.entrypoint,
    size: spec.size,
    createdAt: metadata.createdAt,
    expiresAt: endOf(sandbox),
    timeout: spec.timeoutSeconds,
    onTimeout: spec.onTimeout,
    pauseKind: spec.pauseKind,
    autoResume: spec.autoResume,
    secure: spec.secure,
    publicTraffic: spec.publicTraffic,
    network: spec.network,
    lastSnapshotId: status.lastSnapshot,
    pausedSnapshotId: status.pausedIn,
    restoreMs: status.restoreMs,
  })
}

/** What OpenSandbox's clients look for. Of a failed one the reason is its own, where it has one. */
const REASON_OF_SNAPSHOT: Record<ArtifactState, string> = {
  creating: 'snapshot_accepted',
  ready: 'snapshot_ready',
  deleting: 'snapshot_delete_requested',
  failed: 'snapshot_capture_failed',
}

export function wireSnapshot({ metadata, spec, status }: Snapshot): WireSnapshot {
  return present({
    id: metadata.name,
    name: spec.displayName,
    tags: spec.tags,
    kind: spec.kind,
    sandboxId: spec.sandbox,
    parentId: spec.parent,
    template: spec.template,
    image: spec.imageName,
    size: spec.size,
    status: wireStatus(WIRE_STATE_OF_ARTIFACT, { reason: REASON_OF_SNAPSHOT[status.state], ...status }),
    createdAt: metadata.createdAt,
    expiresAt: spec.expiresAt,
    sizeBytes: status.sizeBytes,
    stoppedMs: status.stoppedMs,
  })
}

export function wireTemplate({ metadata, spec, status }: Template): WireTemplate {
  return present({
    id: metadata.name,
    name: metadata.name,
    image: spec.image,
    size: spec.size,
    env: spec.env,
    startCommand: spec.startCommand,
    readyCommand: spec.readyCommand,
    public: spec.public,
    keepSnapshots: spec.keepSnapshots,
    status: wireStatus(WIRE_STATE_OF_ARTIFACT, status),
    snapshotId: status.snapshot,
    createdAt: metadata.createdAt,
    bootMs: status.bootMs,
  })
}

export function wireImage({ metadata, spec, status }: Image): WireImage {
  return {
    id: metadata.name,
    reference: spec.reference,
    digest: spec.digest,
    config: status.config,
    status: wireStatus(WIRE_STATE_OF_ARTIFACT, status),
    sizeBytes: status.sizeBytes,
    createdAt: metadata.createdAt,
  }
}

export function wireApiKey({ metadata, spec }: ApiKey): WireApiKey {
  const { project, label, hint } = spec
  return { id: metadata.name, project, label, hint, createdAt: metadata.createdAt }
}

export function wireUsage({ sandbox, size, runningSeconds, createdAt, deletedAt }: SandboxUsage): WireUsage {
  const memoryMiBSeconds = runningSeconds * size.memoryMiB
  return present({ sandboxId: sandbox, size, runningSeconds, memoryMiBSeconds, createdAt, deletedAt })
}

export function wireError(error: IceboxError): WireError {
  const { code, message, remedy, details } = error
  return Object.keys(details).length > 0 ? { code, message, remedy, details } : { code, message, remedy }
}
