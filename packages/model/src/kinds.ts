import { z } from 'zod'
import type { Resource } from './resource.ts'
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
  /** Templates made for an image on first use are not listed. */
  hidden: z.boolean(),
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

export const SNAPSHOT_KINDS = ['memory', 'filesystem'] as const
export type SnapshotKind = (typeof SNAPSHOT_KINDS)[number]
/** A snapshot: an immutable point in time of a sandbox. Its name is its id. */
export const SnapshotSpec = z.object({
  kind: z.enum(SNAPSHOT_KINDS),
  displayName: z.string().optional(),
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

export const SANDBOX_VERBS = ['create', 'pause', 'resume', 'rollback', 'delete'] as const
/** A sandbox: a running or paused computer. Its name is its id. */
export const SandboxSpec = z.object({
  displayName: z.string().optional(),
  /** What it was made from, as the caller said it. */
  source: z.discriminatedUnion('from', [
    z.object({ from: z.literal('template'), template: z.string() }),
    z.object({ from: z.literal('snapshot'), snapshot: z.string() }),
    z.object({ from: z.literal('image'), image: z.string() }),
    z.object({ from: z.literal('fork'), sandbox: z.string(), snapshot: z.string() }),
  ]),
  size: Size,
  /** Environment of its execs: the image's, the template's and its own. */
  env: z.record(z.string(), z.string()),
  entrypoint: z.array(z.string()),
  metadata: z.record(z.string(), z.string()),
  /** When it is deleted by itself; absent means never. */
  expiresAt: z.iso.datetime().optional(),
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
      /** Of a pause: the reason to give once it is paused. */
      reason: z.string().optional(),
    })
    .optional(),
  /** How long the last restore took until the guest answered, milliseconds. */
  restoreMs: z.number().optional(),
})
export type SandboxSpec = z.infer<typeof SandboxSpec>
export type SandboxStatus = z.infer<typeof SandboxStatus>
export type Sandbox = Resource<'Sandbox', SandboxSpec, SandboxStatus>

/** Every kind with its schemas; the store validates with these on the way in. */
export const KINDS = {
  Image: { spec: ImageSpec, status: ImageStatus },
  Template: { spec: TemplateSpec, status: TemplateStatus },
  Snapshot: { spec: SnapshotSpec, status: SnapshotStatus },
  Sandbox: { spec: SandboxSpec, status: SandboxStatus },
} as const
export type Kind = keyof typeof KINDS

export interface ResourceOf {
  Image: Image
  Template: Template
  Snapshot: Snapshot
  Sandbox: Sandbox
}
export type SpecOf<K extends Kind> = ResourceOf[K]['spec']
export type StatusOf<K extends Kind> = ResourceOf[K]['status']
