import { z } from 'zod'

/** What can be asked of the agent inside a running sandbox. Served by the node over the guest link. */

export const ExecRequest = z.object({
  /** Program and arguments; never passed through a shell. The program is looked up in PATH of `env`. */
  argv: z.array(z.string()).min(1),
  /** Added to the sandbox's environment. */
  env: z.record(z.string(), z.string()).default({}),
  /** Default: the image's working directory, else the user's home, else `/`. */
  cwd: z.string().optional(),
  /** Name, uid, `name:group` or `uid:gid`. Default: the image's user, else root. */
  user: z.string().optional(),
  /** With a terminal: one output stream, named stdout. */
  pty: z.object({ cols: z.int().min(1).max(65_535), rows: z.int().min(1).max(65_535) }).optional(),
  /** Whether stdin stays open for writes; false gives it end of file at once. */
  stdin: z.boolean().default(false),
  /** Milliseconds after which its process group is killed (SIGKILL). Absent: never. */
  timeoutMs: z.int().min(1).optional(),
  /** Bytes of output kept per stream for re-attaching. */
  keepBytes: z.int().min(4096).max(67_108_864).default(1_048_576),
  /**
   * When more than keepBytes is unread: drop the oldest and report the gap, or block the process, whether or not anybody is
   * attached, or follow the readers: block it as long as somebody is attached. Guests of older snapshots take `follow` as `drop`.
   */
  overflow: z.enum(['drop', 'block', 'follow']).default('drop'),
  /** Free text to find it again by. */
  tag: z.string().max(256).optional(),
})
export type ExecRequest = z.infer<typeof ExecRequest>
/** What a caller may leave out. */
export type ExecInput = z.input<typeof ExecRequest>

export const ExecExit = z.object({
  /** Exit code, absent when a signal ended it. */
  exitCode: z.int().optional(),
  /** Such as `SIGKILL`. */
  signal: z.string().optional(),
  /** It was killed because timeoutMs had passed. */
  timedOut: z.boolean(),
})
export type ExecExit = z.infer<typeof ExecExit>

export const ExecInfo = z.object({
  /** Decimal, unique within the sandbox for its whole life. */
  id: z.string(),
  pid: z.int(),
  argv: z.array(z.string()),
  /** What was added to its environment, up to 4 KiB. Told in listings, while it runs; not by guests of older snapshots. */
  env: z.record(z.string(), z.string()).optional(),
  cwd: z.string(),
  user: z.string(),
  tag: z.string().optional(),
  pty: z.boolean(),
  startedAt: z.iso.datetime(),
  /** Bytes written to each stream since its start: the offset of the next byte. */
  stdoutBytes: z.int(),
  stderrBytes: z.int(),
  /** Bytes of stdin taken since its start. */
  stdinBytes: z.int(),
  exit: ExecExit.optional(),
})
export type ExecInfo = z.infer<typeof ExecInfo>

export type ExecEvent =
  | { type: 'output'; stream: 'stdout' | 'stderr'; offset: number; data: Uint8Array }
  /** Bytes [from, to) of the stream were dropped because nobody read them in time. */
  | { type: 'gap'; stream: 'stdout' | 'stderr'; from: number; to: number }
  | { type: 'exit'; exit: ExecExit }

/** One attachment to an exec. Ending it never ends the process. */
export interface ExecSession {
  readonly info: ExecInfo
  /**
   * Output and, last, the exit. One consumer. Not reading it holds the output back (flow control).
   * Throws `GuestFailed` when the link ends before the exit was seen.
   */
  readonly events: AsyncIterable<ExecEvent>
  /**
   * From now on output counts as read only once it is acknowledged; without it, when the event after it is asked for. To be
   * called before `events` is read.
   */
  holdUntilAcknowledged(): void
  /** The output before these offsets has arrived where it was going: the guest need not keep it for another attempt. */
  acknowledge(before: { stdout?: number | undefined; stderr?: number | undefined }): void
  /**
   * Writes stdin. `offset` is the position in the whole of stdin (bytes before what the guest has taken are skipped), so that
   * a retry neither loses nor doubles; default: after what this session has written. Resolves once the guest has taken it.
   */
  writeStdin(data: Uint8Array, options?: { offset?: number; signal?: AbortSignal }): Promise<void>
  closeStdin(signal?: AbortSignal): Promise<void>
  resize(cols: number, rows: number, signal?: AbortSignal): Promise<void>
  /** Sends to the process group. Such as `SIGINT`. */
  kill(signalName: string, signal?: AbortSignal): Promise<void>
  /** Stops listening; the process goes on. Events end, and writes under way throw `GuestFailed`. */
  detach(): void
}

export const FILE_TYPES = ['file', 'directory', 'symlink', 'fifo', 'socket', 'device'] as const
export const FileInfo = z.object({
  /** Absolute. */
  path: z.string(),
  name: z.string(),
  type: z.enum(FILE_TYPES),
  size: z.int(),
  /** Permission bits including setuid, setgid and sticky. */
  mode: z.int(),
  uid: z.int(),
  gid: z.int(),
  owner: z.string(),
  group: z.string(),
  modifiedAt: z.iso.datetime(),
  /** Of a symlink: where it points, as stored. */
  target: z.string().optional(),
  /** Of a symlink, when it was asked for: what it leads to in the end; absent when that is nothing. */
  leadsTo: z.object({ path: z.string(), type: z.enum(FILE_TYPES), mode: z.int() }).optional(),
  /** Extended attributes by their whole names, those that were asked for. */
  xattrs: z.record(z.string(), z.string()).optional(),
})
export type FileInfo = z.infer<typeof FileInfo>

/** Whose request it is. */
export interface FileAccess {
  user?: string
  /** With root's rights all the same; what is made, and what is written over, then belongs to `user`. */
  privileged?: boolean | undefined
}

/** What a FileInfo tells besides. Guests of older snapshots tell nothing more. */
export interface FileMore {
  /** Extended attributes whose names begin so, through symlinks, and where symlinks lead. */
  xattrs?: string | undefined
}

export type FileEvent =
  | { type: 'create' | 'write' | 'remove' | 'rename' | 'chmod'; path: string }
  | { type: 'overflow' }

export const GuestMetrics = z.object({
  cpuCount: z.number(),
  /** CPU seconds used by all user processes since boot. */
  cpuSeconds: z.number(),
  memoryTotalBytes: z.int(),
  memoryUsedBytes: z.int(),
  diskTotalBytes: z.int(),
  diskUsedBytes: z.int(),
  processes: z.int(),
  /** Of the memory that is used or free, what holds files. Not told by guests of older snapshots. */
  memoryCacheBytes: z.int().optional(),
})
export type GuestMetrics = z.infer<typeof GuestMetrics>

/** Identity and time given to a guest before its processes go on. */
export interface Hello {
  sandbox: string
  hostname: string
  /** 32 hex digits. */
  machineId: string
  /** Added to every exec's environment. */
  env: Record<string, string>
  /** From the image: defaults of execs. */
  defaults: { user: string; workingDir: string }
}

/** A byte stream into the guest: a connection to one of its TCP ports. */
export interface GuestConnection {
  readonly readable: AsyncIterable<Uint8Array>
  write(data: Uint8Array): Promise<void>
  /** Ends our half. */
  end(): Promise<void>
  destroy(): void
}

/**
 * The agent of one running machine. Every call throws `GuestFailed` when the link ends, `DeadlineExceeded` when the signal
 * aborts, and `NotFound`/`InvalidArgument`/`AlreadyExists`/`NoSpace`… for the guest's own refusals (path and errno in the message).
 * `user` is as in ExecRequest: the operation is done with that user's rights; default root. Relative paths start at the
 * user's home.
 */
export interface Guest {
  exec(request: ExecInput, signal: AbortSignal): Promise<ExecSession>
  listExecs(signal: AbortSignal): Promise<ExecInfo[]>
  /**
   * Default offsets: the oldest byte kept. Who attaches at an offset has read what is before it. `none`: for stdin and signals
   * alone. No output comes, none counts as read, and the process does not wait for this session to read.
   */
  attach(id: string, from: { stdout?: number; stderr?: number } | 'none', signal: AbortSignal): Promise<ExecSession>

  readFile(
    path: string,
    options: FileAccess & { offset?: number; length?: number },
    signal: AbortSignal,
  ): Promise<{ info: FileInfo; data: AsyncIterable<Uint8Array> }>
  /** Creates missing directories; replaces by rename, so that a reader sees the old or the new content. Returns the new file. */
  writeFile(
    path: string,
    data: AsyncIterable<Uint8Array>,
    options: FileAccess & { mode?: number; xattrs?: Record<string, string> },
    signal: AbortSignal,
  ): Promise<FileInfo>
  stat(path: string, options: FileAccess & FileMore, signal: AbortSignal): Promise<FileInfo>
  /** depth 1: the directory's own entries. Sorted by path. */
  list(path: string, options: FileAccess & FileMore & { depth?: number }, signal: AbortSignal): Promise<FileInfo[]>
  /** Creates parents too. Returns false when the directory was there already. */
  makeDirectory(path: string, options: FileAccess & { mode?: number }, signal: AbortSignal): Promise<boolean>
  move(from: string, to: string, options: FileAccess & FileMore, signal: AbortSignal): Promise<FileInfo>
  /** Makes a symlink at `path` that points to `target`, as given. `AlreadyExists` when something is there. */
  symlink(target: string, path: string, options: { user?: string }, signal: AbortSignal): Promise<FileInfo>
  /** Directories with all they hold. Symlinks are not followed. */
  remove(path: string, options: FileAccess, signal: AbortSignal): Promise<void>
  setAttributes(
    path: string,
    change: { mode?: number; owner?: string },
    options: { user?: string },
    signal: AbortSignal,
  ): Promise<FileInfo>
  /** Resolves once watching; events end when the signal aborts. */
  watch(
    path: string,
    options: FileAccess & { recursive?: boolean },
    signal: AbortSignal,
  ): Promise<AsyncIterable<FileEvent>>

  /** Connects to a TCP port on the guest's loopback. `NotFound` with details.port when nothing listens. */
  dial(port: number, signal: AbortSignal): Promise<GuestConnection>
  metrics(signal: AbortSignal): Promise<GuestMetrics>
}
