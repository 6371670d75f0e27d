import type { Node, SandboxId } from '@icebox/model'
import type { Admission } from './admission.ts'
import type { Alarm } from './alarm.ts'
import type { Cache } from './cache/cache.ts'
import type { DiskWatch } from './disk-watch.ts'
import type { Exits } from './exits.ts'
import type { Log } from './log.ts'
import type { SandboxLogs } from './logs/logs.ts'
import type { Operations } from './operations.ts'
import type { Records } from './records.ts'
import type { Telemetry } from './telemetry/telemetry.ts'
import type { Transfers } from './transfers.ts'

/** What every service works with. All but `records` is one for all projects. */
export interface Context {
  /** Those of one project. */
  readonly records: Records
  /** Whether this is for the installation's own key, which may have images made that others may not. */
  readonly byInstallation: boolean
  /** The same for another project, for no key of the installation. */
  readonly project: (name: string) => Context
  /** What is known of the records of all projects. */
  readonly cache: Cache
  readonly node: Node
  readonly operations: Operations
  readonly exits: Exits
  /** To be told when an end of a sandbox may have changed. */
  readonly expiry: Alarm
  readonly admission: Admission
  /** The id of the sandbox that a create of this project with this key makes. */
  readonly sandboxIdOf: (project: string, key: string) => SandboxId
  readonly log: Log
  readonly telemetry: Telemetry
  readonly logs: SandboxLogs
  readonly transfers: Transfers
  readonly growth: DiskWatch
  /** Aborts when the control plane is asked to end: long work that the next start begins again is given up, its intent stays. */
  readonly stopping: AbortSignal
  /** Aborts when the control plane lets go: waiting ends, intents stay. */
  readonly closing: AbortSignal
}

/** What finds records of any project. */
export interface Finding extends Pick<Context, 'cache' | 'records'> {
  readonly project: (name: string) => Pick<Context, 'records'>
}

/** Milliseconds that no operation of the kind should need; past them it fails and is undone. */
export const DEADLINES = {
  /** Restore of a snapshot until its guest answers. */
  restore: 120_000,
  /** Save of a snapshot until it is durable. */
  save: 600_000,
  /** Boot of an image until its agent answers. */
  boot: 120_000,
  /** Ready command of a template until it succeeds. */
  ready: 600_000,
  kill: 60_000,
  /** Pull of an image. */
  pull: 1_800_000,
  call: 30_000,
} as const

/** Ends after the time, or when the control plane lets go. */
export const within = (context: Context, milliseconds: number): AbortSignal =>
  AbortSignal.any([context.closing, AbortSignal.timeout(milliseconds)])
