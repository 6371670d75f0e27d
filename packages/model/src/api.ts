import { z } from 'zod'
import { ImageConfig, ProjectName, Size, SNAPSHOT_KINDS, TIMEOUT_ACTIONS } from './kinds.ts'
import { IMAGE_UPLOADS } from './node.ts'

/**
 * The objects of the native API `/v1`, as they stand on the wire: OpenSandbox's lifecycle shape where that speaks, extended
 * where it does not. Resources are turned into these in one place (packages/control/src/wire.ts).
 */

export const WIRE_SANDBOX_STATES = [
  'Pending',
  'Running',
  'Pausing',
  'Paused',
  'Resuming',
  'Stopping',
  'Terminated',
  'Failed',
] as const
export const WIRE_ARTIFACT_STATES = ['Creating', 'Ready', 'Deleting', 'Failed'] as const

const status = <S extends readonly [string, ...string[]]>(states: S) =>
  z.object({
    state: z.enum(states),
    /** Short, for programs. */
    reason: z.string().optional(),
    /** For people. */
    message: z.string().optional(),
    lastTransitionAt: z.iso.datetime().optional(),
  })

/** What users call things; also a valid resource name. */
export const DisplayName = z
  .string()
  .regex(
    /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/,
    'must be 1–63 characters of a-z 0-9 -, with a letter or digit at both ends',
  )
export const EnvVars = z.record(
  z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/, 'must be a name of letters, digits and _'),
  z.string(),
)
export const MetadataMap = z.record(z.string().min(1).max(253), z.string().max(1024))
/** Seconds from now until its time is over. */
export const TimeoutSeconds = z.int().min(1).max(2_592_000)

export const WireSandbox = z.object({
  id: z.string(),
  project: z.string(),
  name: z.string().optional(),
  template: z.string().optional(),
  snapshotId: z.string().optional(),
  image: z.object({ uri: z.string() }).optional(),
  /** Id of the sandbox it is a fork of. */
  forkedFrom: z.string().optional(),
  status: status(WIRE_SANDBOX_STATES),
  metadata: z.record(z.string(), z.string()),
  entrypoint: z.array(z.string()),
  size: Size,
  createdAt: z.iso.datetime(),
  /** When its time is over. Absent: never, or not before it is resumed. */
  expiresAt: z.iso.datetime().optional(),
  /** Seconds it was given first: what it gets again when it is resumed. */
  timeout: z.int().optional(),
  /** What happens when its time is over. */
  onTimeout: z.enum(TIMEOUT_ACTIONS),
  /** What the pause at the end of its time keeps. */
  pauseKind: z.enum(SNAPSHOT_KINDS),
  /** Whether execs, file calls and connections to its ports resume it when it is paused. */
  autoResume: z.boolean(),
  /** Whether the E2B and OpenSandbox services inside it ask for its access token. */
  secure: z.boolean(),
  /** Whether its ports answer without a token. */
  publicTraffic: z.boolean(),
  /** Network settings as they were asked for. */
  network: z.record(z.string(), z.unknown()).optional(),
  /** The newest snapshot of its line: what it was made from, rolled back to, or what was last taken of it. */
  lastSnapshotId: z.string().optional(),
  /** The hidden snapshot of its last pause. */
  pausedSnapshotId: z.string().optional(),
  /** Milliseconds from the start of the last restore (or boot) until the guest had acknowledged HELLO. */
  restoreMs: z.number().optional(),
})
export type WireSandbox = z.infer<typeof WireSandbox>

export const WireSnapshot = z.object({
  id: z.string(),
  name: z.string().optional(),
  /** Its name and one of these, `name:tag`, say which of several of one name is meant. Absent: `default`. */
  tags: z.array(z.string()).optional(),
  kind: z.enum(SNAPSHOT_KINDS),
  sandboxId: z.string(),
  parentId: z.string().optional(),
  template: z.string().optional(),
  image: z.string(),
  size: Size,
  status: status(WIRE_ARTIFACT_STATES),
  createdAt: z.iso.datetime(),
  /** When it is deleted by itself. */
  expiresAt: z.iso.datetime().optional(),
  /** Bytes on disk. */
  sizeBytes: z.int().optional(),
  /** Milliseconds its source did not run. */
  stoppedMs: z.number().optional(),
})
export type WireSnapshot = z.infer<typeof WireSnapshot>

export const WireTemplate = z.object({
  /** The template's name. */
  id: z.string(),
  name: z.string(),
  image: z.string(),
  size: Size,
  env: z.record(z.string(), z.string()),
  startCommand: z.array(z.string()).optional(),
  readyCommand: z.array(z.string()).optional(),
  public: z.boolean().optional(),
  keepSnapshots: z.int().optional(),
  status: status(WIRE_ARTIFACT_STATES),
  snapshotId: z.string().optional(),
  createdAt: z.iso.datetime(),
  /** Milliseconds from boot until ready. */
  bootMs: z.number().optional(),
})
export type WireTemplate = z.infer<typeof WireTemplate>

export const WireImage = z.object({
  /** Hex of the digest. */
  id: z.string(),
  reference: z.string(),
  digest: z.string(),
  config: ImageConfig,
  status: status(WIRE_ARTIFACT_STATES),
  sizeBytes: z.int(),
  createdAt: z.iso.datetime(),
})
export type WireImage = z.infer<typeof WireImage>

export const Pagination = z.object({
  page: z.int().min(1),
  pageSize: z.int().min(1),
  totalItems: z.int().min(0),
  totalPages: z.int().min(0),
  hasNextPage: z.boolean(),
  /** Gives the part that follows, as `after`; there when something follows. */
  nextToken: z.string().optional(),
})
export const page = <T extends z.ZodType>(item: T) => z.object({ items: z.array(item), pagination: Pagination })

export const WireError = z.object({
  code: z.string(),
  message: z.string(),
  /** What to do next. */
  remedy: z.string(),
  details: z.record(z.string(), z.union([z.string(), z.number(), z.boolean()])).optional(),
})
export type WireError = z.infer<typeof WireError>

/** Exactly one of template, image and snapshotId. */
export const CreateSandbox = z
  .object({
    name: DisplayName.optional(),
    template: z.string().min(1).optional(),
    snapshotId: z.string().min(1).optional(),
    image: z.object({ uri: z.string().min(1) }).optional(),
    /** Started after the restore; its end does not end the sandbox. */
    entrypoint: z.array(z.string()).min(1).optional(),
    env: EnvVars.default({}),
    metadata: MetadataMap.default({}),
    /** null or absent: it has no end. */
    timeout: TimeoutSeconds.nullish(),
    /** What happens when its time is over. Default: `kill`, which deletes it. */
    onTimeout: z.enum(TIMEOUT_ACTIONS).optional(),
    /** What the pause at the end of its time keeps. Default: `memory`. */
    pauseKind: z.enum(SNAPSHOT_KINDS).optional(),
    /** Execs, file calls and connections to its ports resume it when it is paused. Default: false. */
    autoResume: z.boolean().optional(),
    /** The E2B and OpenSandbox services inside it ask for its access token. Default: true. */
    secure: z.boolean().optional(),
    /** Its ports answer without a token. Default: false. */
    publicTraffic: z.boolean().optional(),
    /** Kept and shown, not acted upon. */
    network: z.record(z.string(), z.unknown()).optional(),
    /** Kubernetes quantities `cpu` and `memory`, also `disk`; only with image: a snapshot's size is fixed. */
    resourceLimits: z.record(z.string(), z.string()).optional(),
    /**
     * false: its ports and guest services answer to everybody who knows its id. Otherwise only with the headers that its endpoints
     * are told with, or with a key.
     */
    secureAccess: z.boolean().optional(),
  })
  .refine(
    (body) => [body.template, body.snapshotId, body.image].filter((source) => source !== undefined).length === 1,
    {
      error: 'give exactly one of template, image and snapshotId',
    },
  )
export type CreateSandbox = z.infer<typeof CreateSandbox>
export type CreateSandboxInput = z.input<typeof CreateSandbox>

export const ForkSandbox = z.object({
  count: z.int().min(1).max(100).default(1),
  env: EnvVars.default({}),
  metadata: MetadataMap.optional(),
  timeout: TimeoutSeconds.nullish(),
})
export type ForkSandbox = z.infer<typeof ForkSandbox>
export const ForkResult = z.union([z.object({ sandbox: WireSandbox }), z.object({ error: WireError })])
export type ForkResult = z.infer<typeof ForkResult>

/** What users call a snapshot: other clients of this API give names that are no resource names. */
export const SnapshotName = z
  .string()
  .regex(/^[^\s\p{Cc}/]([^\p{Cc}/]{0,126}[^\s\p{Cc}/])?$/u, 'must be 1–128 characters without / and control characters')
/** Of a snapshot: tells several of one name apart. */
export const SnapshotTag = z.string().regex(/^[a-z0-9_.-]{1,128}$/, 'must be 1–128 characters of a-z 0-9 _ . -')

export const CreateSnapshot = z.object({
  name: SnapshotName.optional(),
  /** With a name. Default: `default`. */
  tags: z.array(SnapshotTag).min(1).max(100).optional(),
  /** Once it is ready it takes name and tags from the snapshots that have them; one left without a tag is deleted. */
  replace: z.boolean().optional(),
  kind: z.enum(SNAPSHOT_KINDS).default('filesystem'),
  /** Delete the sandbox once the snapshot is durable. */
  stop: z.boolean().default(false),
  /** When it is deleted by itself; absent: never. */
  expiresAt: z.iso.datetime({ offset: true }).optional(),
})
export type CreateSnapshot = z.infer<typeof CreateSnapshot>
export const RollbackSandbox = z.object({ snapshotId: z.string().min(1) })
/** What a pause keeps: `memory` (the default) also its processes, `filesystem` its files alone; it is then resumed by a boot. */
export const PauseSandbox = z.object({ kind: z.enum(SNAPSHOT_KINDS).optional() })
export type PauseSandbox = z.infer<typeof PauseSandbox>
/** `onlyExtend`: an end that is later already stays. */
const onlyExtend = z.boolean().optional()
export const RenewSandbox = z.union([
  z.object({ expiresAt: z.iso.datetime({ offset: true }), onlyExtend }),
  z.object({ timeout: TimeoutSeconds.nullable(), onlyExtend }),
])
export type RenewSandbox = z.infer<typeof RenewSandbox>
/** `timeout`: seconds it is to live from now at least; null: for ever. Absent: what it was given first, if it has to be resumed. */
export const ConnectSandbox = z.object({ timeout: TimeoutSeconds.nullish() })
export type ConnectSandbox = z.infer<typeof ConnectSandbox>

export const BuildTemplate = z.object({
  name: DisplayName,
  image: z.string().min(1),
  size: Size.partial().default({}),
  env: EnvVars.default({}),
  startCommand: z.array(z.string()).min(1).optional(),
  readyCommand: z.array(z.string()).min(1).optional(),
  /** Sandboxes of every project can be made from it. */
  public: z.boolean().optional(),
  /** Of the snapshots that are taken of sandboxes made from it only the newest so many stay. */
  keepSnapshots: z.int().min(1).max(1_000_000).optional(),
})
export type BuildTemplate = z.infer<typeof BuildTemplate>
export const PullImage = z.object({ reference: z.string().min(1) })

export const ImportImage = z.object({
  /** What the body is the tar of: a root file system, an OCI image layout, or what `docker save` wrote. */
  kind: z.enum(IMAGE_UPLOADS).default('tar'),
  /** Which of several images in it: a tag of the layout, a name in the docker archive. */
  name: z.string().min(1).max(512).optional(),
  /** The image is known as `upload:` and this. Default: the kind. */
  label: z.string().min(1).max(4096).optional(),
})
export type ImportImageInput = z.input<typeof ImportImage>

export const CreateApiKey = z.object({
  /** The project it opens. */
  project: ProjectName,
  /** What people call it. */
  label: z.string().max(100).default(''),
})
export type CreateApiKey = z.infer<typeof CreateApiKey>
export type CreateApiKeyInput = z.input<typeof CreateApiKey>
export const WireApiKey = z.object({
  id: z.string(),
  project: z.string(),
  label: z.string(),
  /** The beginning of the key. */
  hint: z.string(),
  createdAt: z.iso.datetime(),
})
export type WireApiKey = z.infer<typeof WireApiKey>
/** The answer to the creation of a key, which alone has the key itself. */
export const NewApiKey = WireApiKey.extend({ key: z.string() })
export type NewApiKey = z.infer<typeof NewApiKey>

/** What a sandbox has used in its life so far. */
export const WireUsage = z.object({
  sandboxId: z.string(),
  size: Size,
  runningSeconds: z.number(),
  /** Running seconds times the memory it may use. */
  memoryMiBSeconds: z.number(),
  createdAt: z.iso.datetime(),
  /** Absent while it exists. */
  deletedAt: z.iso.datetime().optional(),
})
export type WireUsage = z.infer<typeof WireUsage>

export const WireCollected = z.object({
  what: z.enum(['snapshot', 'template', 'usage', 'file']),
  id: z.string(),
  /** Absent for what is of no project. */
  project: z.string().optional(),
  /** Why it may go. */
  reason: z.string(),
  /** Freed on disk. */
  bytes: z.number(),
})
export type WireCollected = z.infer<typeof WireCollected>
export const CollectResult = z.object({
  dryRun: z.boolean(),
  items: z.array(WireCollected),
  /** Of all. */
  bytes: z.number(),
})
export type CollectResult = z.infer<typeof CollectResult>

/** One line of a progress stream (`application/x-ndjson`); the last one has `result` or `error`. */
export const ProgressLine = z.object({
  phase: z.string().optional(),
  done: z.number().optional(),
  total: z.number().optional(),
  unit: z.enum(['bytes', 'files']).optional(),
  result: z.unknown().optional(),
  error: WireError.optional(),
})
export type ProgressLine = z.infer<typeof ProgressLine>

/** One transition of a resource, or the death of a server. */
export const WireEvent = z.object({
  /** Grows with each event of the installation. */
  id: z.int().min(1),
  at: z.iso.datetime(),
  project: z.string(),
  kind: z.enum(['Sandbox', 'Snapshot', 'Template', 'Server']),
  /** Its name: the id of a sandbox or snapshot; `server`. */
  resource: z.string(),
  /** Absent when it was made. */
  from: z.string().optional(),
  /** The state it is in since; `deleted` when it is gone. */
  to: z.string(),
  reason: z.string().optional(),
  message: z.string().optional(),
  /** The operation that is under way since. */
  verb: z.string().optional(),
  operation: z.string().optional(),
})
export type WireEvent = z.infer<typeof WireEvent>

/** One thing that a sandbox, or Icebox about it, has said. */
export const LogEntry = z.object({
  at: z.iso.datetime(),
  /** lifecycle: what became of the sandbox. Else what its start command or entrypoint wrote. */
  source: z.enum(['lifecycle', 'stdout', 'stderr']),
  text: z.string(),
  /** The exec that wrote it. */
  exec: z.string().optional(),
  /** Its tag: `start` or `entrypoint`. */
  of: z.string().optional(),
  /** Bytes of the stream up to the end of this text. */
  end: z.int().min(0).optional(),
})
export type LogEntry = z.infer<typeof LogEntry>

export const SandboxStats = z.object({
  id: z.string(),
  cpuSeconds: z.number(),
  memoryBytes: z.int(),
  diskBytes: z.int(),
  processes: z.int(),
})
export type SandboxStats = z.infer<typeof SandboxStats>
