import type { ExecutionId, MachineExit, MachineSpec, SnapshotKind } from '@icebox/model'
import type { GuestLink } from '../link/link.ts'

export interface Capabilities {
  /** A snapshot can hold memory and processes. */
  memorySnapshots: boolean
  /** Saving costs what changed, not what is there. */
  incremental: boolean
  /** A restore may start before all bytes are here. */
  lazyRestore: boolean
}

export interface Probe {
  usable: boolean
  /** Version and digest of the program that runs machines. */
  version: string
  digest: string
  /** Why it is usable or not, for people. */
  reason: string
}

/** What must be equal, or at least present, for a restore: compared by the manifest gate. */
export interface DriverFacts {
  name: string
  version: string
  /** Of the program that runs machines. */
  digest: string
  flags: string[]
  cpuFeatures: string[]
}

/** What a save wrote: file names within the directory, for the manifest. */
export interface Saved {
  /** Files in the directory that a restore needs. */
  files: string[]
  driver: DriverFacts
  /** sha256 of the agent inside, `sha256:<hex>`. */
  agentDigest: string
}

/** What runs sandboxes on a node. Callers ask capabilities, never names. */
export interface Driver {
  readonly name: 'gvisor' | 'qemu'
  readonly capabilities: Capabilities
  probe(signal: AbortSignal): Promise<Probe>
  /** What snapshots made here say of this driver. */
  facts(signal: AbortSignal): Promise<DriverFacts>
  /** A machine whose agent answers the link but has not had HELLO. */
  boot(execution: ExecutionId, spec: MachineSpec, signal: AbortSignal): Promise<Machine>
  /** The same from what `save` wrote: `memory` goes on where it was, `filesystem` boots with the saved files. */
  restore(
    execution: ExecutionId,
    saved: { directory: string; kind: SnapshotKind },
    spec: MachineSpec,
    signal: AbortSignal,
  ): Promise<Machine>
  /** Bytes that a restore of it writes to the data directory's disk; undefined when the save does not say. */
  restoreBytes(saved: { directory: string; kind: SnapshotKind }): Promise<number | undefined>
  /** Keeps `count` slots for machines of this spec. */
  prepare(spec: MachineSpec, count: number, signal: AbortSignal): Promise<void>
  /** Machines that outlived the last server; the rest of what that left is removed. Called once, before anything else. */
  adopt(signal: AbortSignal): Promise<{ machines: Machine[]; lost: MachineExit[] }>
  /** Lets go of machines and removes slots. */
  close(): Promise<void>
}

/** One running instance of a sandbox. */
export interface Machine {
  readonly execution: ExecutionId
  readonly spec: MachineSpec
  readonly link: GuestLink
  readonly frozen: boolean
  /** Resolves when the machine is gone, whoever ended it, and nothing of it is left. */
  readonly exited: Promise<MachineExit>
  freeze(signal: AbortSignal): Promise<void>
  /** Writes a frozen machine into an empty directory. The machine survives it, whatever happens. Not durable yet: no fsync. */
  save(directory: string, kind: SnapshotKind, signal: AbortSignal): Promise<Saved>
  thaw(signal: AbortSignal): Promise<void>
  kill(signal: AbortSignal): Promise<void>
  usage(signal: AbortSignal): Promise<{ cpuSeconds: number; memoryBytes: number; diskBytes: number }>
}
