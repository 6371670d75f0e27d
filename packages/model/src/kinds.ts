import { z } from 'zod'
import { type Resource, SYSTEM_NAMESPACE } from './resource.ts'
import { ARTIFACT_STATES, SANDBOX_STATES } from './states.ts'

/** Limits of a sandbox, fixed for a snapshot and all that is restored from it. */
export const Size = z.object({
  /** Virtual cores; fractions allowed. */
  cpu: z.number().min(0.1).max(64),
  /** MiB of memory for the workload, without the driver's own overhead. */
  memoryMiB: z.int().min(64).max(262_144),
  /** MiB of disk that can be written over the image. */
  diskMiB: z.int().min(64).max(1_048_576),
})
export type Size = z.infer<typeof Size>
export const DEFAULT_SIZE: Size = { cpu: 1, memoryMiB: 512, diskMiB: 2048 }

/** What an OCI image says about how it is run; carried into templates. */
export const ImageConfig = z.object({
  env: z.record(z.string(), z.string()),
  workingDir: z.string(),
  /** `name`, `uid`, `name:group` or `uid:gid`; empty means root. */
  user: z.string(),
  entrypoint: z.array(z.string()),
  cmd: z.array(z.string()),
})
export type ImageConfig = z.infer<typeof ImageConfig>

/** Of a project: a DNS label that is not ours. */
export const ProjectName = z
  .string()
  .regex(
    /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/,
    'must be 1–63 characters of a-z 0-9 -, with a letter or digit at both ends',
  )
  .refine((name) => name !== SYSTEM_NAMESPACE, 'is not the name of a project')

const settled = { reason: z.string().optional(), message: z.string().optional(), lastTransitionAt: z.iso.datetime() }

/** An image: a root file system pinned by digest. Its name is the hex of its digest. */
export const ImageSpec = z.object({
  /** What was asked for, such as `docker.io/library/python:3.12` or `debian:bookworm+git`. */
  reference: z.string(),
  /** `sha256:<hex>`: of the platform's manifest for OCI images, of the canonical tree for others. */
  digest: z.string(),
})
export const ImageStatus = z.object({
  state: z.enum(ARTIFACT_STATES),
  ...settled,
  config: ImageConfig,
  /** Bytes of the stored file system(s). */
  sizeBytes: z.int(),
})
export type ImageSpec = z.infer<typeof ImageSpec>
export type ImageStatus = z.infer<typeof ImageStatus>
export type Image = Resource<'Image', ImageSpec, ImageStatus>

/** How to make a sandbox. Building it boots once, waits until ready, and takes its snapshot. */
export const TemplateSpec = z.object({
  image: z.string(),
  size: Size,
  env: z.record(z.string(), z.string()),
  /** Started at build and part of the snapshot: it goes on in every sandbox. */
  startCommand: z.array(z.string()).optional(),
  /** Run again and again until it exits 0; only then is the snapshot taken. */
  readyCommand: z.array(z.string()).optional(),
  /** Whether the installation's own key asked for it: its image is made for that, also when the build is begun again. */
  byInstallation: z.boolean().optional(),
  /** Templates made for an image on first use are not listed. */
  hidden: z.boolean(),
  /** Sandboxes of every project can be made from it. */
  public: z.boolean().optional(),
  /** Of the snapshots that are taken of sandboxes made from it only the newest so many stay. */
  keepSnapshots: z.int().min(1).optional(),
})
export const TemplateStatus = z.object({
  state: z.enum(ARTIFACT_STATES),
  ...settled,
  /** Name of the Image resource. */
  imageName: z.string().optional(),
  snapshot: z.string().optional(),
  /** The run that is being booted for the build. */
  buildExecution: z.string().optional(),
  /** Milliseconds that booting until ready took. */
  bootMs: z.number().optional(),
})
export type TemplateSpec = z.infer<typeof TemplateSpec>
export type TemplateStatus = z.infer<typeof TemplateStatus>
export type Template = Resource<'Template', TemplateSpec, TemplateStatus>

/** The tag of a snapshot that was given none. */
export const DEFAULT_TAG = 'default'
export const SNAPSHOT_KINDS = ['memory', 'filesystem'] as const
export type SnapshotKind = (typeof SNAPSHOT_KINDS)[number]
/** A snapshot: an immutable point in time of a sandbox. Its name is its id. */
export const SnapshotSpec = z.object({
  kind: z.enum(SNAPSHOT_KINDS),
  displayName: z.string().optional(),
  /** What tells it from others of its name: of two that have the same, only the newest that is ready counts. Absent: `default`. */
  tags: z.array(z.string()).optional(),
  /** The sandbox it was taken of. */
  sandbox: z.string(),
  /** The run it was taken of. */
  execution: z.string(),
  /** The snapshot its sandbox was restored from: the parent in the tree. */
  parent: z.string().optional(),
  template: z.string().optional(),
  imageName: z.string(),
  size: Size,
  /** Environment given to execs in sandboxes restored from it. */
  env: z.record(z.string(), z.string()),
  /** user: asked for. pause: belongs to its paused sandbox, hidden. template: belongs to its template, hidden. */
  purpose: z.enum(['user', 'pause', 'template', 'fork']),
  /** When it is deleted by itself; absent means never. */
  expiresAt: z.iso.datetime().optional(),
})
export const SnapshotStatus = z.object({
  state: z.enum(ARTIFACT_STATES),
  ...settled,
  sizeBytes: z.int().optional(),
  /** Milliseconds its source did not run. */
  stoppedMs: z.number().optional(),
})
export type SnapshotSpec = z.infer<typeof SnapshotSpec>
export type SnapshotStatus = z.infer<typeof SnapshotStatus>
export type Snapshot = Resource<'Snapshot', SnapshotSpec, SnapshotStatus>

/** How long a sandbox has run. Written in the same step as the state that begins or ends a run. */
export const Usage = z.object({
  /** Seconds of the runs that have ended. */
  runningSeconds: z.number().min(0),
  /** Since when the present run runs. */
  runningSince: z.iso.datetime().optional(),
})
export type Usage = z.infer<typeof Usage>

export const TIMEOUT_ACTIONS = ['kill', 'pause'] as const
export const SANDBOX_VERBS = ['create', 'pause', 'resume', 'rollback', 'delete'] as const
/** A sandbox: a running or paused computer. Its name is its id. */
export const SandboxSpec = z.object({
  displayName: z.string().optional(),
  /** What it was made from, as the caller said it. */
  source: z.discriminatedUnion('from', [
    /** `project`: whose public template it is, when it is not of the sandbox's own. */
    z.object({ from: z.literal('template'), template: z.string(), project: z.string().optional() }),
    z.object({ from: z.literal('snapshot'), snapshot: z.string() }),
    /** `byInstallation`: whether the installation's own key asked for it. */
    z.object({ from: z.literal('image'), image: z.string(), byInstallation: z.boolean().optional() }),
    z.object({ from: z.literal('fork'), sandbox: z.string(), snapshot: z.string() }),
  ]),
  /** What its line began with, which forks share: name of the template, name or id of the snapshot, or the image. */
  origin: z.string().optional(),
  size: Size,
  /** Environment of its execs: the image's, the template's and its own. */
  env: z.record(z.string(), z.string()),
  entrypoint: z.array(z.string()),
  metadata: z.record(z.string(), z.string()),
  /** When its time is over; absent means never. */
  expiresAt: z.iso.datetime().optional(),
  /** Seconds it was given when it was made: what it gets again when it is resumed because somebody needs it. */
  timeoutSeconds: z.int().min(1).optional(),
  /** What happens when its time is over. */
  onTimeout: z.enum(TIMEOUT_ACTIONS).default('kill'),
  /** What the pause at the end of its time keeps. */
  pauseKind: z.enum(SNAPSHOT_KINDS).default('memory'),
  /** Whether who needs it while it is paused resumes it. */
  autoResume: z.boolean().default(false),
  /** Whether the façades' guest services ask for the sandbox's access token. */
  secure: z.boolean().default(true),
  /** Whether its ports answer to everybody who knows its id. */
  publicTraffic: z.boolean().default(false),
  /** Network settings as they were asked for, kept to be shown. */
  network: z.record(z.string(), z.unknown()).optional(),
  /** The create that made it, so that its repetition makes no other: the key given by the caller, and a hash of what was asked. */
  request: z.object({ key: z.string(), hash: z.string() }).optional(),
})
export const SandboxStatus = z.object({
  state: z.enum(SANDBOX_STATES),
  ...settled,
  /** The run that is, or was last, behind it. */
  execution: z.string().optional(),
  /** Name of the Image its runs stand on. */
  imageName: z.string().optional(),
  /** The newest snapshot of its line: what it was made from, rolled back to, or what was last taken of it; parent of the next. */
  lastSnapshot: z.string().optional(),
  /** The snapshot of its last pause. It holds the sandbox while that is paused, and goes when the next pause is durable. */
  pausedIn: z.string().optional(),
  /** What is under way; absent when settled. Written before anything happens. */
  operation: z
    .object({
      id: z.string(),
      verb: z.enum(SANDBOX_VERBS),
      startedAt: z.iso.datetime(),
      /** The snapshot it writes (pause) or reads (create, resume, rollback). */
      snapshot: z.string().optional(),
      /** The run it starts. */
      execution: z.string().optional(),
      /** Of a rollback: the state it found, to which a failure returns. */
      from: z.enum(SANDBOX_STATES).optional(),
      /** Of a pause: the reason to give once it is paused. Of a resume or rollback: the one to give when it fails and it stays paused. */
      reason: z.string().optional(),
      /** Of a pause: what it keeps. */
      kind: z.enum(SNAPSHOT_KINDS).optional(),
    })
    .optional(),
  /** How long it has run in all. */
  usage: Usage.default({ runningSeconds: 0 }),
  /** How long the last restore took until the guest answered, milliseconds. */
  restoreMs: z.number().optional(),
})
export type SandboxSpec = z.infer<typeof SandboxSpec>
export type SandboxStatus = z.infer<typeof SandboxStatus>
export type Sandbox = Resource<'Sandbox', SandboxSpec, SandboxStatus>

/** A key of a project. Its name is derived from the key, which is kept nowhere. */
export const ApiKeySpec = z.object({
  project: ProjectName,
  /** What people call it. */
  label: z.string(),
  /** `sha256:<hex>` of the key. */
  hash: z.string(),
  /** The beginning of the key, by which people tell it from others. */
  hint: z.string(),
})
export const ApiKeyStatus = z.object({ state: z.enum(ARTIFACT_STATES), ...settled })
export type ApiKeySpec = z.infer<typeof ApiKeySpec>
export type ApiKeyStatus = z.infer<typeof ApiKeyStatus>
export type ApiKey = Resource<'ApiKey', ApiKeySpec, ApiKeyStatus>

/** What a sandbox that is gone has used. Its name is the sandbox's id. */
export const UsageRecordSpec = z.object({
  size: Size,
  runningSeconds: z.number().min(0),
  createdAt: z.iso.datetime(),
  deletedAt: z.iso.datetime(),
})
export const UsageRecordStatus = z.object({ state: z.enum(ARTIFACT_STATES), ...settled })
export type UsageRecordSpec = z.infer<typeof UsageRecordSpec>
export type UsageRecordStatus = z.infer<typeof UsageRecordStatus>
export type UsageRecord = Resource<'UsageRecord', UsageRecordSpec, UsageRecordStatus>

/** Every kind with its schemas; the store validates with these on the way in. */
export const KINDS = {
  Image: { spec: ImageSpec, status: ImageStatus },
  Template: { spec: TemplateSpec, status: TemplateStatus },
  Snapshot: { spec: SnapshotSpec, status: SnapshotStatus },
  Sandbox: { spec: SandboxSpec, status: SandboxStatus },
  ApiKey: { spec: ApiKeySpec, status: ApiKeyStatus },
  UsageRecord: { spec: UsageRecordSpec, status: UsageRecordStatus },
} as const
export type Kind = keyof typeof KINDS

export interface ResourceOf {
  Image: Image
  Template: Template
  Snapshot: Snapshot
  Sandbox: Sandbox
  ApiKey: ApiKey
  UsageRecord: UsageRecord
}
export type SpecOf<K extends Kind> = ResourceOf[K]['spec']
export type StatusOf<K extends Kind> = ResourceOf[K]['status']
