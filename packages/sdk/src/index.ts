export type {
  CollectResult,
  ExecEvent,
  ExecExit,
  ExecInfo,
  FileEvent,
  FileInfo,
  ForkResult,
  LogEntry,
  NewApiKey,
  SandboxStats,
  SnapshotFault,
  WireApiKey,
  WireCollected,
  WireEvent,
  WireImage,
  WireSandbox,
  WireSnapshot,
  WireTemplate,
  WireUsage,
} from '@icebox/model'
export type { CallOptions } from './deadline.ts'
export { IceboxError, isIceboxError } from './error.ts'
export type { EventOptions, Events } from './events.ts'
export type { Exec, ExecOptions, ExecResult } from './exec.ts'
export type { FileContent, FileOptions, Files } from './files.ts'
export { Icebox, type ServerInfo } from './icebox.ts'
export type { Images } from './images.ts'
export type { Keys } from './keys.ts'
export type { List } from './list.ts'
export type { ProgressOptions, Step } from './progress.ts'
export {
  type ConnectOptions,
  type CreateOptions,
  ForkError,
  type ForkOptions,
  type PauseOptions,
  Sandbox,
  type SnapshotOptions,
} from './sandbox.ts'
export type { ListOptions, Sandboxes } from './sandboxes.ts'
export { type ConnectionOptions, connectionSettings } from './settings.ts'
export type { SnapshotListOptions, Snapshots } from './snapshots.ts'
export type { ExecStdin } from './stdin.ts'
export type { BuildOptions, Templates } from './templates.ts'
