import type {
  ApiKey,
  BuildTemplate,
  ConnectSandbox,
  CreateApiKey,
  CreateSandbox,
  CreateSnapshot,
  ExecInput,
  ExecSession,
  ExecutionId,
  ForkSandbox,
  Guest,
  IceboxError,
  Image,
  ImageUpload,
  LogEntry,
  PauseSandbox,
  Progress,
  RenewSandbox,
  Sandbox,
  SandboxStats,
  Size,
  Snapshot,
  SnapshotFault,
  Template,
  WireEvent,
} from '@icebox/model'

import type { PageRequest, Slice } from './page.ts'

/** An operation that was accepted: its intent is durable, and a crash from here on finishes or undoes it. */
export interface Accepted<R> {
  /** The resource as it is with the intent written. */
  resource: R
  /** The resource once the operation has ended; rejects with an IceboxError when it failed. */
  settled: Promise<R>
}

export interface Connected {
  sandbox: Sandbox
  resumed: boolean
}

/** Which sandboxes are meant; all conditions together. */
export interface SandboxFilter {
  /** In one of these; empty: in any. */
  states?: Sandbox['status']['state'][]
  /** With all of these. */
  metadata?: Record<string, string>
  /** Whose line began with this: the name of a template or snapshot, its id, or an image. */
  origin?: string
  /** Created at this time or later, ISO 8601. */
  createdFrom?: string
}

/** A create that may be repeated. */
export interface SandboxRequest extends CreateSandbox {
  /**
   * Names the request within its project: repeated with the same body it makes no other sandbox, with another body it is a
   * `Conflict`. 1–255 visible ASCII characters.
   */
  key?: string
}

/** `ref` is everywhere an id, a name, or a unique prefix of an id. Errors: `NotFound`, `Ambiguous`. */
export interface Sandboxes {
  /** `TooManyRequests` over a limit or when too many wait; then nothing was written. */
  create(body: SandboxRequest, signal: AbortSignal): Promise<Accepted<Sandbox>>
  /** Deletes what a create has left whose failure its caller was told: what was made under the same id since then stays. */
  discard(failed: Sandbox, signal: AbortSignal): Promise<void>
  get(ref: string, signal: AbortSignal): Promise<Sandbox>
  /** Newest first unless asked otherwise. */
  list(filter: SandboxFilter, page: PageRequest, signal: AbortSignal): Promise<Slice<Sandbox>>
  /** Joins an equal one under way; `Conflict` while another operation is. */
  pause(ref: string, body: PauseSandbox, signal: AbortSignal): Promise<Accepted<Sandbox>>
  /** Its time, when it was given one, begins anew. */
  resume(ref: string, signal: AbortSignal): Promise<Accepted<Sandbox>>
  rollback(ref: string, snapshot: string, signal: AbortSignal): Promise<Accepted<Sandbox>>
  /** `settled` gives the last state that was seen. */
  delete(ref: string, signal: AbortSignal): Promise<Accepted<Sandbox>>
  /**
   * Resolves once it runs: waits while it is on its way, and resumes it when it is paused, together with everybody else who
   * wants that. Never brings its end nearer. `resumed`: it was paused. Errors: `Conflict` when it is being deleted,
   * `InvalidState` when it has failed, and those of the resume.
   */
  connect(ref: string, body: ConnectSandbox, signal: AbortSignal): Promise<Connected>
  /** Sets when its time is over. `Conflict` while it is being paused or deleted, `InvalidState` while it is paused. */
  renew(ref: string, body: RenewSandbox, signal: AbortSignal): Promise<Sandbox>
  /** Changes settings; it runs on. */
  update(
    ref: string,
    changes: Partial<Pick<Sandbox['spec'], 'onTimeout' | 'network'>>,
    signal: AbortSignal,
  ): Promise<Sandbox>
  /** null deletes a key. */
  patchMetadata(ref: string, patch: Record<string, string | null>, signal: AbortSignal): Promise<Sandbox>
  /** In order of creation; every child settled. Rejects when the snapshot failed: then there are no children. */
  fork(ref: string, body: ForkSandbox, signal: AbortSignal): Promise<({ sandbox: Sandbox } | { error: IceboxError })[]>
  /** The agent of a sandbox that runs, or is resumed for this because it asks for that. `InvalidState` otherwise. */
  guest(ref: string, signal: AbortSignal): Promise<Guest>
  /** With the defaults of the sandbox applied. */
  exec(ref: string, request: ExecInput, signal: AbortSignal): Promise<ExecSession>
  stats(ref: string, signal: AbortSignal): Promise<SandboxStats>
  /**
   * What became of it and what its start command and entrypoint wrote, as far back as it is kept, whatever its state; `follow`
   * goes on as long as these run.
   */
  logs(ref: string, options: { follow: boolean }, signal: AbortSignal): Promise<AsyncIterable<LogEntry>>
}

export interface Snapshots {
  create(sandbox: string, body: CreateSnapshot, signal: AbortSignal): Promise<Accepted<Snapshot>>
  get(ref: string, signal: AbortSignal): Promise<Snapshot>
  /** Newest first. Without those that belong to a template, a fork or a paused sandbox unless `hidden`. */
  list(
    filter: { sandbox?: string; name?: string; tag?: string; states?: Snapshot['status']['state'][]; hidden?: boolean },
    page: PageRequest,
    signal: AbortSignal,
  ): Promise<Slice<Snapshot>>
  delete(ref: string, signal: AbortSignal): Promise<Accepted<Snapshot>>
  /** Adds tags to a named snapshot, and takes them from others of the name. */
  tag(ref: string, tags: readonly string[], signal: AbortSignal): Promise<Snapshot>
  /** What is left without a tag is there by its id only. Tags that it does not have are no error. */
  untag(ref: string, tags: readonly string[], signal: AbortSignal): Promise<Snapshot>
  /**
   * Counts a verification, export or import, with its upload or download, until what it gives is called. Throws `TooManyRequests`
   * when too many are under way. The work itself is done in turn.
   */
  enterTransfer(): () => void
  verify(ref: string, signal: AbortSignal): Promise<SnapshotFault[]>
  /** `file` is on the server's machine. */
  exportTo(ref: string, file: string, progress: Progress, signal: AbortSignal): Promise<void>
  importFrom(file: string, options: { name?: string }, progress: Progress, signal: AbortSignal): Promise<Snapshot>
}

export interface Templates {
  build(body: BuildTemplate, progress: Progress, signal: AbortSignal): Promise<Accepted<Template>>
  /** One of its own or, when it has none of the name, a public one of another project. */
  get(ref: string, signal: AbortSignal): Promise<Template>
  /** Newest first, without those that were made for an image. */
  list(page: PageRequest, signal: AbortSignal): Promise<Slice<Template>>
  /** `public`: whether sandboxes of every project can be made from it. */
  update(ref: string, changes: { public: boolean }, signal: AbortSignal): Promise<Template>
  delete(ref: string, signal: AbortSignal): Promise<Accepted<Template>>
}

export interface Images {
  /** `Forbidden` when whoever asks may not have it made. */
  pull(reference: string, progress: Progress, signal: AbortSignal): Promise<Image>
  /** Makes one of a file on the server's machine that the client has sent. */
  import(upload: ImageUpload, progress: Progress, signal: AbortSignal): Promise<Image>
  get(ref: string, signal: AbortSignal): Promise<Image>
  list(page: PageRequest, signal: AbortSignal): Promise<Slice<Image>>
  /** `InUse` while a template, snapshot or sandbox needs it. */
  delete(ref: string, signal: AbortSignal): Promise<Image>
}

/** What one sandbox has used between two times. */
export interface SandboxUsage {
  sandbox: string
  size: Size
  /** Within the period. */
  runningSeconds: number
  createdAt: string
  /** Absent while it exists. */
  deletedAt?: string
}

/** Something that `collect` removes, or would. */
export interface Collected {
  what: 'snapshot' | 'template' | 'usage' | 'file'
  id: string
  /** Absent for what is of no project. */
  project?: string
  /** Why it may go. */
  reason: string
  /** Freed on disk. */
  bytes: number
}

/** The services of one project. What other projects have is not there for them, but for public templates. */
export interface Project {
  readonly name: string
  readonly sandboxes: Sandboxes
  readonly snapshots: Snapshots
  readonly templates: Templates
  readonly images: Images
  /** Of all sandboxes that existed in the period, those that are gone included, newest first. */
  usage(period: { from?: string; to?: string }, page: PageRequest): Slice<SandboxUsage>
  /** Removes what of this project has expired, is over a keep count, has failed or is not needed any more; `dryRun` only tells. */
  collect(options: { dryRun: boolean }, signal: AbortSignal): Promise<Collected[]>
}

/** Who shows which key. */
export interface Keys {
  /**
   * Whose key it is; undefined: nobody's. The installation's own key, which is in the data directory and not in the store,
   * is of the project `default` and may manage keys.
   */
  authenticate(key: string): Promise<KeyOwner | undefined>
  /** The key itself is told this one time. A project begins with its first key. */
  create(body: CreateApiKey): Promise<{ key: string; record: ApiKey }>
  list(page: PageRequest): Promise<Slice<ApiKey>>
  /** By id or unique prefix of it. It opens nothing from here on. Errors: `NotFound`, `Ambiguous`. */
  revoke(ref: string): Promise<ApiKey>
}

export interface KeyOwner {
  project: string
  installation: boolean
  /** Fires when the key is revoked: what it has begun ends. Absent where it cannot be. */
  revoked?: AbortSignal
}

/** A running sandbox and the agent in it. */
export interface Reached {
  sandbox: Sandbox
  execution: ExecutionId
  guest: Guest
}

/** What reaches into sandboxes of every project by their id alone. Its callers look at tokens. */
export interface Traffic {
  /** Errors: `NotFound`. Changes nothing. */
  find(id: string, signal: AbortSignal): Promise<Sandbox>
  /** Whose it is; undefined when there is no such sandbox. From memory. */
  projectOf(id: string): string | undefined
  /** The one that has a token of which this is true, if it is among the 128 that were made last. Changes nothing. */
  findBy(is: (tokens: SandboxTokens) => boolean, signal: AbortSignal): Promise<Sandbox | undefined>
  /** Waits while it is on its way, resumes it when it is paused and asks for that. Errors: `NotFound`, `InvalidState`. */
  reach(id: string, signal: AbortSignal): Promise<Reached>
  /** The same over pause and resume, others for every fork. */
  tokens(sandbox: Sandbox): SandboxTokens
}
export interface SandboxTokens {
  /** For the façades' guest services. */
  access: string
  /** For ports. */
  traffic: string
}

/** The events of a project, or of all. */
export interface EventFilter {
  project?: string | undefined
  /** Name of a resource. */
  resource?: string | undefined
  /** After the event with this id. */
  after?: number | undefined
}
export interface EventService {
  /** As far back as they are kept of the project, oldest first. */
  list(filter: EventFilter): WireEvent[]
  /** The same, then each as it happens, until the signal aborts. */
  follow(filter: EventFilter, signal: AbortSignal): AsyncIterable<WireEvent>
}

/** Everything the API calls. */
export interface Control {
  readonly events: EventService
  /** What Prometheus reads, in its text format. */
  metrics(): Promise<string>
  /** Of a project that need not have anything yet, for those who have a key of it. */
  project(name: string): Project
  /** The project `default` for the installation's own key: images may be made of the machine's files and by a bootstrap. */
  readonly installation: Project
  readonly keys: Keys
  readonly traffic: Traffic
  /** The same of every project, and what belongs to nobody. */
  collect(options: { dryRun: boolean }, signal: AbortSignal): Promise<Collected[]>
  /** `pause` every running sandbox, `kill` (delete) them, or `keep` them running; then let go of node and store. */
  close(mode: 'pause' | 'kill' | 'keep', signal: AbortSignal): Promise<void>
}
