import { createHash } from 'node:crypto'
import type { ApiKey, Image, Kind, ResourceOf, Sandbox, Size, Snapshot, Template, UsageRecord } from '@icebox/model'
import { endOf, isExpiring } from '../sandboxes/time.ts'
import { labelsOf } from '../snapshots/names.ts'

/** What of a resource is kept in memory: what others are found by, and counted by. All the rest is read when it is needed. */
interface Common<K extends Kind> {
  readonly kind: K
  readonly namespace: string
  readonly name: string
  readonly uid: string
  /** resourceVersion. */
  readonly version: string
  readonly createdAt: string
  readonly state: ResourceOf[K]['status']['state']
  /** When it came into its state, ISO 8601. */
  readonly since: string
}

export interface SandboxSummary extends Common<'Sandbox'> {
  readonly displayName: string | undefined
  /** What its line began with. */
  readonly origin: string
  readonly reason: string | undefined
  readonly image: string | undefined
  /** The run behind it. */
  readonly execution: string | undefined
  /** The run that is being started. */
  readonly nextExecution: string | undefined
  /** The snapshot that the operation under way writes or reads. */
  readonly operationSnapshot: string | undefined
  readonly pausedIn: string | undefined
  readonly lastSnapshot: string | undefined
  /** When something is to happen to it, milliseconds since 1970. */
  readonly due: number | undefined
  readonly size: Size
  readonly runningSeconds: number
  readonly runningSince: string | undefined
  /** Hashes of its metadata, by which it is found; undefined when they are too many. */
  readonly pairs: readonly string[] | undefined
}

export interface SnapshotSummary extends Common<'Snapshot'> {
  readonly displayName: string | undefined
  /** What it is called by, besides its id. */
  readonly labels: readonly string[]
  readonly purpose: Snapshot['spec']['purpose']
  readonly sandbox: string
  readonly parent: string | undefined
  readonly template: string | undefined
  readonly image: string
  readonly reason: string | undefined
  /** When it is to be deleted, milliseconds since 1970. */
  readonly due: number | undefined
  readonly sizeBytes: number
}

export interface TemplateSummary extends Common<'Template'> {
  readonly hidden: boolean
  readonly public: boolean
  /** As it was asked for. */
  readonly reference: string
  /** Name of the Image. */
  readonly image: string | undefined
  readonly snapshot: string | undefined
  readonly keepSnapshots: number | undefined
}

export interface ImageSummary extends Common<'Image'> {
  readonly reference: string
  readonly digest: string
}

export interface ApiKeySummary extends Common<'ApiKey'> {
  readonly project: string
}

export interface UsageRecordSummary extends Common<'UsageRecord'> {
  /** When its sandbox was created. */
  readonly createdAt: string
  readonly size: Size
  readonly runningSeconds: number
  readonly deletedAt: string
}

export interface SummaryOf {
  Sandbox: SandboxSummary
  Snapshot: SnapshotSummary
  Template: TemplateSummary
  Image: ImageSummary
  ApiKey: ApiKeySummary
  UsageRecord: UsageRecordSummary
}

/** Metadata of a sandbox that is kept in memory; one that has more is read when metadata is asked for. */
const MAX_PAIRS = 16

/** Stands for one key and value of metadata. */
export const pairOf = (key: string, value: string): string =>
  createHash('sha256')
    .update(JSON.stringify([key, value]))
    .digest('base64url')
    .slice(0, 16)

function pairsOf(metadata: Record<string, string>): string[] | undefined {
  const pairs = Object.entries(metadata)
  return pairs.length > MAX_PAIRS ? undefined : pairs.map(([key, value]) => pairOf(key, value))
}

const common = <K extends Kind>({ kind, metadata, status }: ResourceOf[K]): Common<K> =>
  // The compiler cannot see that the kind of a resource of kind K is K.
  ({
    kind,
    namespace: metadata.namespace,
    name: metadata.name,
    uid: metadata.uid,
    version: metadata.resourceVersion,
    createdAt: metadata.createdAt,
    state: status.state,
    since: status.lastTransitionAt,
  }) as Common<K>

/** What the line of a sandbox began with: the name of a template or snapshot, its id, or an image. */
export function originOf({ origin, source }: Sandbox['spec']): string {
  if (origin !== undefined) return origin
  switch (source.from) {
    case 'template':
      return source.template
    case 'snapshot':
    case 'fork':
      return source.snapshot
    case 'image':
      return source.image
  }
}

const timeOf = (at: string | undefined): number | undefined => (at === undefined ? undefined : Date.parse(at))

const SUMMARIES: { [K in Kind]: (resource: ResourceOf[K]) => SummaryOf[K] } = {
  Sandbox: (sandbox: Sandbox) => {
    const { spec, status } = sandbox
    return {
      ...common<'Sandbox'>(sandbox),
      displayName: spec.displayName,
      origin: originOf(spec),
      reason: status.reason,
      image: status.imageName,
      execution: status.execution,
      nextExecution: status.operation?.execution,
      operationSnapshot: status.operation?.snapshot,
      pausedIn: status.pausedIn,
      lastSnapshot: status.lastSnapshot,
      due: isExpiring(sandbox) ? timeOf(endOf(sandbox)) : undefined,
      size: spec.size,
      runningSeconds: status.usage.runningSeconds,
      runningSince: status.usage.runningSince,
      pairs: pairsOf(spec.metadata),
    }
  },
  Snapshot: (snapshot: Snapshot) => {
    const { spec, status } = snapshot
    return {
      ...common<'Snapshot'>(snapshot),
      displayName: spec.displayName,
      labels: labelsOf(snapshot),
      purpose: spec.purpose,
      sandbox: spec.sandbox,
      parent: spec.parent,
      template: spec.template,
      image: spec.imageName,
      reason: status.reason,
      due: spec.purpose === 'user' && status.state !== 'deleting' ? timeOf(spec.expiresAt) : undefined,
      sizeBytes: status.sizeBytes ?? 0,
    }
  },
  Template: (template: Template) => {
    const { spec, status } = template
    return {
      ...common<'Template'>(template),
      hidden: spec.hidden,
      public: spec.public === true,
      reference: spec.image,
      image: status.imageName,
      snapshot: status.snapshot,
      keepSnapshots: spec.keepSnapshots,
    }
  },
  Image: (image: Image) => ({
    ...common<'Image'>(image),
    reference: image.spec.reference,
    digest: image.spec.digest,
  }),
  ApiKey: (key: ApiKey) => ({ ...common<'ApiKey'>(key), project: key.spec.project }),
  UsageRecord: (record: UsageRecord) => ({
    ...common<'UsageRecord'>(record),
    size: record.spec.size,
    runningSeconds: record.spec.runningSeconds,
    createdAt: record.spec.createdAt,
    deletedAt: record.spec.deletedAt,
  }),
}

export const summaryOf = <K extends Kind>(kind: K, resource: ResourceOf[K]): SummaryOf[K] => SUMMARIES[kind](resource)
