import type { Guest, Hello } from './guest.ts'
import type { ExecutionId, SnapshotId } from './ids.ts'
import type { ImageConfig, Size, SnapshotKind } from './kinds.ts'

/** Called with what is being done and, where known, how far it is. */
export type Progress = (step: { phase: string; done?: number; total?: number; unit?: 'bytes' | 'files' }) => void

/** For whom something is done. */
export interface Principal {
  project: string
  /** Whether it was asked for with the installation's own key: it alone may read files of the machine and bootstrap on it. */
  installation: boolean
}

export const IMAGE_UPLOADS = ['tar', 'oci', 'docker-archive'] as const
/** What an uploaded file is: the tar of a root file system, of an OCI image layout, or what `docker save` wrote. */
export type ImageUploadKind = (typeof IMAGE_UPLOADS)[number]
export interface ImageUpload {
  kind: ImageUploadKind
  /** A file of this machine, which may be gone once it is made. */
  file: string
  /** Of several images in it: the tag of a layout, the name in a docker archive. */
  name?: string
  /** What its project knows it by. */
  reference: string
}

export interface NodeImage {
  digest: string
  reference: string
  config: ImageConfig
  sizeBytes: number
}

/** What a machine is made of: never who it is or where it runs. */
export interface MachineSpec {
  /** `sha256:<hex>` of an image the node has. */
  imageDigest: string
  size: Size
}

export type MachineExitReason = 'killed' | 'OutOfMemory' | 'Crashed' | 'HostRestarted'
export interface MachineExit {
  execution: ExecutionId
  reason: MachineExitReason
  message: string
}

/** How long each part of an operation took, milliseconds, by phase name. */
export type Phases = Record<string, number>

export interface SnapshotInfo {
  id: SnapshotId
  kind: SnapshotKind
  parent?: SnapshotId
  imageDigest: string
  size: Size
  env: Record<string, string>
  sizeBytes: number
  createdAt: string
}

export interface SnapshotFault {
  blob: string
  problem: string
}

/**
 * One machine that runs sandboxes, as the control plane sees it. It decides nothing: it does what it is told and reports.
 * Ids are given by the caller, so that after a crash on either side the same call can be made again.
 */
export interface Node {
  readonly driver: { name: string; memorySnapshots: boolean }

  /**
   * Makes the image present. Joins a pull of the same reference under way for one who may have the same. Throws `Forbidden` when
   * it may not be made for them.
   */
  pullImage(reference: string, by: Principal, progress: Progress, signal: AbortSignal): Promise<NodeImage>
  /** Makes an image of a file that its client has sent. */
  importImage(upload: ImageUpload, by: Principal, progress: Progress, signal: AbortSignal): Promise<NodeImage>
  listImages(signal: AbortSignal): Promise<NodeImage[]>
  removeImage(digest: string, signal: AbortSignal): Promise<void>

  /** Resolves when the guest has acknowledged HELLO. On any failure nothing of the machine is left. */
  boot(execution: ExecutionId, spec: MachineSpec, hello: Hello, signal: AbortSignal): Promise<Phases>
  /** The same from a snapshot; a filesystem snapshot boots. */
  restore(
    execution: ExecutionId,
    snapshot: SnapshotId,
    spec: MachineSpec,
    hello: Hello,
    signal: AbortSignal,
  ): Promise<Phases>
  /**
   * Takes a snapshot; the machine runs on afterwards, unless `hold`: then it stays frozen until `thaw` or `kill`. After a failure it
   * runs on and there is no snapshot; only when what was written cannot be removed it stays frozen. Resolves once the snapshot is durable
   * and complete. The phase `stopped` is how long the guest did not run. `env` is kept with it for those who import it elsewhere.
   * `urgent`: it may take of the reserve of the disk, since it ends the growth of the machine's own. One that is frozen goes on for the
   * moment that its guest needs to be quiet.
   */
  save(
    execution: ExecutionId,
    snapshot: SnapshotId,
    options: {
      kind: SnapshotKind
      hold: boolean
      parent?: SnapshotId
      env: Record<string, string>
      urgent?: boolean
    },
    signal: AbortSignal,
  ): Promise<{ snapshot: SnapshotInfo; phases: Phases }>
  /** Lets the machine stand still until `thaw`, a save or its end. */
  freeze(execution: ExecutionId, signal: AbortSignal): Promise<void>
  thaw(execution: ExecutionId, signal: AbortSignal): Promise<void>
  /** Ends the machine and removes all that belonged to it. Ending what is not there succeeds. */
  kill(execution: ExecutionId, signal: AbortSignal): Promise<void>
  /** The runs that exist now, with whether they are frozen. */
  machines(): { execution: ExecutionId; frozen: boolean }[]
  /** `NotFound` when no such run exists. */
  guest(execution: ExecutionId): Guest
  /** CPU seconds and bytes of memory as the host accounts them. */
  usage(
    execution: ExecutionId,
    signal: AbortSignal,
  ): Promise<{ cpuSeconds: number; memoryBytes: number; diskBytes: number }>
  /** Bytes that may still be written to its disk, less than none when what is kept in reserve is touched. */
  space(): { freeBytes: number; reserveBytes: number }
  /** Restores ahead: keeps `count` slots for sandboxes of this spec. */
  prepareSlots(spec: MachineSpec, count: number, signal: AbortSignal): Promise<void>
  /**
   * Whether the host was started anew since the control plane last said `settled`: runs that are missing went with it.
   */
  readonly hostRestarted: boolean
  /**
   * When a server with this data directory was last known to be alive before this one, ISO 8601, a minute too early at most; undefined:
   * there was none.
   */
  readonly lastSeen: string | undefined
  /** The control plane has written down what was lost. */
  settled(signal: AbortSignal): Promise<void>
  /** Called once for each run that ended without kill, those found dead at the start included, whenever the listener came. */
  onExit(listener: (exit: MachineExit) => void): void

  /** Those whose bytes are all on the disk. Nothing of them is read. */
  listSnapshots(signal: AbortSignal): Promise<SnapshotId[]>
  /** What one on the disk is. `damaged`: it is there and cannot be read; a restore says why. */
  findSnapshot(id: SnapshotId, signal: AbortSignal): Promise<SnapshotInfo | 'damaged' | undefined>
  /** Removes its bytes. Removing what is not there succeeds. */
  removeSnapshot(snapshot: SnapshotId, signal: AbortSignal): Promise<void>
  /** Rereads every byte. Empty: all is well. */
  verifySnapshot(snapshot: SnapshotId, signal: AbortSignal): Promise<SnapshotFault[]>
  /** One file with everything needed to restore it elsewhere, its image included. */
  exportSnapshot(snapshot: SnapshotId, file: string, progress: Progress, signal: AbortSignal): Promise<void>
  /**
   * Under the id given; the file's own is recorded. `accept` is told what it is once all of it was checked, and its image is here,
   * before it becomes a snapshot; when it throws nothing does.
   */
  importSnapshot(
    snapshot: SnapshotId,
    file: string,
    accept: (snapshot: Omit<SnapshotInfo, 'sizeBytes' | 'createdAt'>, image: NodeImage) => Promise<void>,
    progress: Progress,
    signal: AbortSignal,
  ): Promise<SnapshotInfo>

  /** Removes temporary files that nobody has written to for a day; `dryRun` only tells. Bytes as the disk counts them. */
  sweep(options: { dryRun: boolean }, signal: AbortSignal): Promise<{ file: string; bytes: number }[]>

  /** Lets go of everything without ending machines. */
  close(): Promise<void>
}
