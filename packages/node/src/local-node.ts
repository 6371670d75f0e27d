import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import {
  type ExecutionId,
  type Guest,
  type Hello,
  IceboxError,
  ImageConfig,
  type ImageUpload,
  isError,
  type MachineExit,
  type MachineSpec,
  type Node,
  type NodeImage,
  type Phases,
  type Principal,
  type Progress,
  type SnapshotFault,
  type SnapshotId,
  type SnapshotInfo,
} from '@icebox/model'
import { gate, type OpenSnapshot, type Snapshots, spaceOf } from '@icebox/snapshot'
import { z } from 'zod'
import { Admission } from './admission.ts'
import type { Driver, Machine } from './driver/driver.ts'
import { hasRestarted, lastSeen, rememberBoot, seen } from './host-boot.ts'
import type { ImageStore } from './images/store.ts'
import { PhaseClock } from './phases.ts'
import { soon } from './soon.ts'
import { sweep } from './sweep.ts'

/** Milliseconds that the start waits for the guests that it takes over. */
const PROMPT_MS = 2000
/** Bytes beyond memory and disk that a save writes: device state, manifest, directories. */
const SAVE_OVERHEAD = 16 * 2 ** 20
/** Milliseconds a machine has to go on after a save, whatever became of the caller. */
const RECOVERY_DEADLINE = 30_000
/**
 * Milliseconds a guest has to hold its processes, and to let them go. Whoever owns the sandbox can stop its agent: nobody else
 * waits for longer.
 */
const GUEST_DEADLINE = 10_000
/** Machine specs that slots are kept for: those used last. Each slot costs the memory of an idle sentry. */
const SPECS_WITH_SLOTS = 2
/** How often it is noted that the server is alive. */
const PULSE_MS = 60_000
/** Names of the further files in an export. */
const IMAGE_FILE = 'image.erofs'
const IMAGE_FACTS = 'image.json'

const ImageFacts = z.object({
  digest: z.string(),
  reference: z.string(),
  config: ImageConfig,
  sizeBytes: z.int().min(0),
})

export interface LocalNodeParts {
  driver: Driver
  images: ImageStore
  snapshots: Snapshots
  /** Durable file that remembers the boot of the host under which the control plane last settled. */
  bootFile: string
  /** For what is made on the way, on the file system of the data directory. */
  tmp: string
  /** Containers kept created ahead for each of the last used specs; 0: none. */
  slots: number
  agentVersion: string
  /** Told what went wrong in the background. */
  onTrouble: (what: string, error: IceboxError) => void
}

/**
 * The machine this process runs on, as a node. Adopts what outlived the last server before it returns; runs that were lost
 * meanwhile are told to the first exit listener.
 */
export async function openLocalNode(parts: LocalNodeParts, signal: AbortSignal): Promise<Node> {
  await Promise.all([parts.images.recover(signal), parts.snapshots.recover(signal)])
  const { machines, lost } = await parts.driver.adopt(signal)
  const { bootFile } = parts
  const node = new LocalNode(parts, lost, await hasRestarted(bootFile), await lastSeen(bootFile))
  await Promise.all(machines.map((machine) => node.adopt(machine, signal)))
  return node
}

class LocalNode implements Node {
  readonly driver: Node['driver']
  readonly #parts: LocalNodeParts
  readonly #admission = new Admission()
  readonly #machines = new Map<ExecutionId, Machine>()
  readonly #listeners: ((exit: MachineExit) => void)[] = []
  readonly #closing = new AbortController()
  /** Specs with slots, the one used last at the end. */
  readonly #shelved = new Map<string, MachineSpec>()
  #untold: MachineExit[]

  readonly hostRestarted: boolean
  readonly lastSeen: string | undefined
  #pulse: NodeJS.Timeout | undefined

  constructor(parts: LocalNodeParts, lost: MachineExit[], hostRestarted: boolean, seenAt: string | undefined) {
    this.hostRestarted = hostRestarted
    this.lastSeen = seenAt
    this.#parts = parts
    this.#untold = lost
    this.driver = { name: parts.driver.name, memorySnapshots: parts.driver.capabilities.memorySnapshots }
  }

  /**
   * Takes over a machine that outlived the last server. One that is frozen stays so: whether it goes on is not decided here.
   * One whose guest does not answer is lost, and keeps nobody else from being taken over: what takes longer than a moment
   * is found out while the server serves.
   */
  async adopt(machine: Machine, signal: AbortSignal): Promise<void> {
    // The last server may have ended between quiesce and freeze.
    const released = machine.frozen ? Promise.resolve() : machine.link.release(AbortSignal.timeout(RECOVERY_DEADLINE))
    const settled = released.then(
      () => undefined,
      (thrown: unknown) => ({ failure: IceboxError.from(thrown) }),
    )
    const early = await soon(
      settled.then((outcome) => outcome ?? 'released'),
      PROMPT_MS,
    )
    signal.throwIfAborted()
    if (early !== undefined && early !== 'released') return this.#lose(machine, early.failure)
    this.#keep(machine)
    if (early === 'released') return
    void settled.then(async (outcome) => {
      if (outcome !== undefined && !this.#closing.signal.aborted && this.#machines.has(machine.execution))
        await this.#lose(machine, outcome.failure)
    })
  }

  async #lose(machine: Machine, failure: IceboxError): Promise<void> {
    await this.#remove(machine)
    const message = `its guest did not answer after the server came back: ${failure.message}`
    this.#tell({ execution: machine.execution, reason: 'Crashed', message })
  }

  #tell(exit: MachineExit): void {
    if (this.#listeners.length === 0) this.#untold.push(exit)
    for (const listener of this.#listeners) listener(exit)
  }

  /** Ends a machine that nobody was given. */
  async #remove(machine: Machine): Promise<void> {
    await machine
      .kill(AbortSignal.timeout(RECOVERY_DEADLINE))
      .catch((trouble) =>
        this.#parts.onTrouble(`machine ${machine.execution} could not be removed`, IceboxError.from(trouble)),
      )
  }

  #keep(machine: Machine): void {
    this.#machines.set(machine.execution, machine)
    void machine.exited.then((exit) => {
      this.#machines.delete(machine.execution)
      if (exit.reason === 'killed') return
      this.#tell(exit)
    })
  }

  #machine(execution: ExecutionId): Machine {
    const machine = this.#machines.get(execution)
    if (machine === undefined) throw new IceboxError('NotFound', `no machine runs as ${execution}`)
    return machine
  }

  pullImage(reference: string, by: Principal, progress: Progress, signal: AbortSignal): Promise<NodeImage> {
    return this.#parts.images.pullAs(by, reference, progress, signal)
  }

  importImage(upload: ImageUpload, by: Principal, progress: Progress, signal: AbortSignal): Promise<NodeImage> {
    return this.#parts.images.importUpload(by, upload, progress, signal)
  }

  listImages(signal: AbortSignal): Promise<NodeImage[]> {
    return this.#parts.images.list(signal)
  }

  async removeImage(digest: string, signal: AbortSignal): Promise<void> {
    for (const [key, spec] of this.#shelved) {
      if (spec.imageDigest !== digest) continue
      this.#shelved.delete(key)
      await this.#parts.driver.prepare(spec, 0, signal)
    }
    await this.#parts.images.remove(digest, signal)
  }

  async boot(execution: ExecutionId, spec: MachineSpec, hello: Hello, signal: AbortSignal): Promise<Phases> {
    const clock = new PhaseClock()
    await this.#admission.memory(0, 'a boot', async () => {
      const machine = await this.#parts.driver.boot(execution, spec, signal)
      clock.mark('boot')
      await this.#handOut(machine, async () => {
        await machine.link.hello(hello, signal)
        clock.mark('hello')
        await this.#addXattrs(machine, signal)
        clock.mark('xattrs')
      })
    })
    this.#keepSlots(spec)
    return clock.phases
  }

  /**
   * gVisor's EROFS has no extended attributes: they are set in the disk of the first boot of an image, and every snapshot of
   * that has them.
   */
  async #addXattrs({ link, spec }: Machine, signal: AbortSignal): Promise<void> {
    for (const { path, name, value } of await this.#parts.images.xattrs(spec.imageDigest)) {
      await link.setXattr(path, name, value, signal)
    }
  }

  async restore(
    execution: ExecutionId,
    id: SnapshotId,
    spec: MachineSpec,
    hello: Hello,
    signal: AbortSignal,
  ): Promise<Phases> {
    const { driver, snapshots } = this.#parts
    const clock = new PhaseClock()
    const { manifest, directory, allocatedBytes } = await snapshots.open(id, signal)
    gate(manifest, await driver.facts(signal))
    if (manifest.imageDigest !== spec.imageDigest) {
      throw new IceboxError(
        'SnapshotIncompatible',
        `snapshot ${id} stands on image ${manifest.imageDigest}, not ${spec.imageDigest}`,
      )
    }
    clock.mark('check')
    const saved = { directory, kind: manifest.kind }
    const diskBytes = (await driver.restoreBytes(saved)) ?? allocatedBytes
    const memoryBytes = manifest.kind === 'memory' ? allocatedBytes : 0
    await this.#admission.memory(memoryBytes, `restoring ${id}`, () =>
      snapshots.withSpace(diskBytes, `restoring ${id}`, async () => {
        const machine = await driver.restore(execution, saved, spec, signal)
        clock.mark('restore')
        await this.#handOut(machine, async () => {
          await machine.link.hello(hello, signal)
          clock.mark('hello')
        })
      }),
    )
    this.#keepSlots(spec)
    return clock.phases
  }

  /** A machine whose guest does not take what it is greeted with is destroyed, not handed out. */
  async #handOut(machine: Machine, greet: () => Promise<void>): Promise<void> {
    try {
      await greet()
    } catch (error) {
      await this.#remove(machine)
      throw error
    }
    this.#keep(machine)
  }

  async save(
    execution: ExecutionId,
    id: SnapshotId,
    options: Parameters<Node['save']>[2],
    signal: AbortSignal,
  ): Promise<{ snapshot: SnapshotInfo; phases: Phases }> {
    const machine = this.#machine(execution)
    const { kind, hold, parent, env, urgent = false } = options
    const usage = await machine.usage(signal)
    const expected = (kind === 'memory' ? usage.memoryBytes : 0) + usage.diskBytes + SAVE_OVERHEAD
    const draft = await this.#parts.snapshots.begin(id, expected, signal, { urgent })
    const clock = new PhaseClock()
    const started = performance.now()
    let goesOn = false
    let sealing = false
    try {
      if (machine.frozen) await this.#goOn(machine)
      await quiesce(machine, signal)
      clock.mark('quiesce')
      await machine.freeze(signal)
      clock.mark('freeze')
      const saved = await machine.save(draft.directory, kind, signal)
      clock.mark('save')
      if (!hold) {
        await this.#goOn(machine)
        goesOn = true
        clock.mark('thaw')
      }
      clock.phases.stopped = performance.now() - started
      sealing = true
      const manifest = await draft.commit(
        {
          kind,
          files: saved.files,
          driver: saved.driver,
          agent: { version: this.#parts.agentVersion, digest: saved.agentDigest },
          size: machine.spec.size,
          imageDigest: machine.spec.imageDigest,
          labels: {},
          env,
          ...(parent === undefined ? {} : { parent }),
        },
        signal,
      )
      clock.mark('durable')
      return { snapshot: infoOf(await this.#parts.snapshots.open(manifest.id, signal)), phases: clock.phases }
    } catch (error) {
      const trouble = (what: string) => (thrown: unknown) =>
        this.#parts.onTrouble(`machine ${execution} ${what} a failed save`, IceboxError.from(thrown))
      await draft.discard().catch(trouble('left a draft after'))
      // One of that name that was there before stays.
      const mayStay = sealing && !isError(error, 'AlreadyExists')
      const removed =
        !mayStay ||
        (await this.#parts.snapshots.remove(id, AbortSignal.timeout(RECOVERY_DEADLINE)).then(
          () => true,
          (thrown) => {
            trouble(`cannot be rid of snapshot ${id} after`)(thrown)
            return false
          },
        ))
      // While the bytes may be complete it stays frozen: a state is taken up once, here or from the snapshot.
      if (!goesOn && removed) {
        const going = this.#goOn(machine).catch(trouble('did not go on after'))
        // The guest hears what it was told in that order; nobody waits a second time for one that does not listen.
        if (machine.frozen) await going
      }
      throw error
    }
  }

  async #goOn(machine: Machine): Promise<void> {
    await machine.thaw(AbortSignal.timeout(RECOVERY_DEADLINE))
    await machine.link.release(AbortSignal.timeout(GUEST_DEADLINE))
  }

  freeze(execution: ExecutionId, signal: AbortSignal): Promise<void> {
    return this.#machine(execution).freeze(signal)
  }

  thaw(execution: ExecutionId): Promise<void> {
    return this.#goOn(this.#machine(execution))
  }

  async kill(execution: ExecutionId, signal: AbortSignal): Promise<void> {
    await this.#machines.get(execution)?.kill(signal)
  }

  machines(): { execution: ExecutionId; frozen: boolean }[] {
    return [...this.#machines.values()].map(({ execution, frozen }) => ({ execution, frozen }))
  }

  guest(execution: ExecutionId): Guest {
    return this.#machine(execution).link
  }

  usage(execution: ExecutionId, signal: AbortSignal) {
    return this.#machine(execution).usage(signal)
  }

  space(): { freeBytes: number; reserveBytes: number } {
    return spaceOf(this.#parts.tmp)
  }

  async prepareSlots(spec: MachineSpec, count: number, signal: AbortSignal): Promise<void> {
    await this.#parts.driver.prepare(spec, count, signal)
  }

  /** Slots for what was used last: whoever made one sandbox of a kind will want another. */
  #keepSlots(spec: MachineSpec): void {
    const { driver, slots, onTrouble } = this.#parts
    if (slots === 0) return
    const key = JSON.stringify([spec.imageDigest, spec.size.cpu, spec.size.memoryMiB, spec.size.diskMiB])
    const isNew = !this.#shelved.delete(key)
    this.#shelved.set(key, spec)
    if (!isNew) return
    const want = (wanted: MachineSpec, count: number) =>
      driver.prepare(wanted, count, this.#closing.signal).catch((error) => {
        if (!this.#closing.signal.aborted) onTrouble('slots could not be made', IceboxError.from(error))
      })
    void want(spec, slots)
    for (const [oldest, old] of this.#shelved) {
      if (this.#shelved.size <= SPECS_WITH_SLOTS) break
      this.#shelved.delete(oldest)
      void want(old, 0)
    }
  }

  async settled(): Promise<void> {
    const { bootFile } = this.#parts
    await rememberBoot(bootFile)
    this.#pulse ??= setInterval(() => void seen(bootFile), PULSE_MS).unref()
  }

  onExit(listener: (exit: MachineExit) => void): void {
    this.#listeners.push(listener)
    for (const exit of this.#untold.splice(0)) listener(exit)
  }

  listSnapshots(signal: AbortSignal): Promise<SnapshotId[]> {
    return this.#parts.snapshots.list(signal)
  }

  async findSnapshot(id: SnapshotId, signal: AbortSignal): Promise<SnapshotInfo | 'damaged' | undefined> {
    const found = await this.#parts.snapshots.find(id, signal)
    return found === undefined || found === 'damaged' ? found : infoOf(found)
  }

  removeSnapshot(id: SnapshotId, signal: AbortSignal): Promise<void> {
    return this.#parts.snapshots.remove(id, signal)
  }

  verifySnapshot(id: SnapshotId, signal: AbortSignal): Promise<SnapshotFault[]> {
    return this.#parts.snapshots.verify(id, signal)
  }

  async exportSnapshot(id: SnapshotId, file: string, progress: Progress, signal: AbortSignal): Promise<void> {
    const { images, snapshots, tmp } = this.#parts
    const { manifest } = await snapshots.open(id, signal)
    const image = (await images.list(signal)).find(({ digest }) => digest === manifest.imageDigest)
    if (image === undefined)
      throw new IceboxError('NotFound', `the image ${manifest.imageDigest} of snapshot ${id} is not here`)
    const work = await mkdtemp(join(tmp, 'export-'))
    try {
      const facts = join(work, IMAGE_FACTS)
      await writeFile(facts, JSON.stringify(ImageFacts.parse(image)))
      const extras = [
        { name: IMAGE_FACTS, path: facts },
        { name: IMAGE_FILE, path: images.path(image.digest, 'erofs') },
      ]
      await snapshots.exportTo(id, file, extras, progress, signal)
    } finally {
      await rm(work, { recursive: true, force: true })
    }
  }

  async importSnapshot(
    id: SnapshotId,
    file: string,
    accept: Parameters<Node['importSnapshot']>[2],
    progress: Progress,
    signal: AbortSignal,
  ): Promise<SnapshotInfo> {
    const { images, snapshots } = this.#parts
    const incoming = await snapshots.importFrom(file, id, progress, signal)
    try {
      const facts = incoming.extras.get(IMAGE_FACTS)
      const erofs = incoming.extras.get(IMAGE_FILE)
      if (facts === undefined || erofs === undefined) {
        throw new IceboxError('InvalidArgument', `${file} holds a snapshot without its image`)
      }
      const parsed = ImageFacts.safeParse(JSON.parse(await readFile(facts, 'utf8')))
      if (!parsed.success || parsed.data.digest !== incoming.manifest.imageDigest) {
        throw new IceboxError('SnapshotCorrupt', `${file} holds another image than its snapshot stands on`)
      }
      const image = await images.importErofs(erofs, parsed.data, signal)
      const { kind, size, env = {}, imageDigest } = incoming.manifest
      await accept({ id, kind, imageDigest, size, env }, image)
      const manifest = await incoming.commit(signal)
      return infoOf(await snapshots.open(manifest.id, signal))
    } catch (error) {
      await incoming.discard()
      throw error
    }
  }

  sweep(options: { dryRun: boolean }, signal: AbortSignal): Promise<{ file: string; bytes: number }[]> {
    return sweep(this.#parts.tmp, options, signal)
  }

  async close(): Promise<void> {
    this.#closing.abort()
    if (this.#pulse !== undefined) {
      clearInterval(this.#pulse)
      await seen(this.#parts.bootFile)
    }
    await this.#parts.driver.close()
    await this.#parts.snapshots.close(AbortSignal.timeout(RECOVERY_DEADLINE))
  }
}

/**
 * A state whose processes were not held is none to save: restored, they would go on with the time, the entropy and the identity
 * of before. Throws GuestFailed when the guest does not answer in time.
 */
async function quiesce({ execution, link }: Machine, signal: AbortSignal): Promise<void> {
  const deadline = AbortSignal.timeout(GUEST_DEADLINE)
  try {
    await link.quiesce(AbortSignal.any([signal, deadline]))
  } catch (thrown) {
    if (signal.aborted || !deadline.aborted) throw thrown
    throw new IceboxError(
      'GuestFailed',
      `the agent in machine ${execution} did not hold its processes within ${GUEST_DEADLINE / 1000} s, so that nothing was saved`,
      { cause: thrown, remedy: 'Let the agent, process 1 of the sandbox, run; or delete the sandbox.' },
    )
  }
}

function infoOf({ manifest, allocatedBytes }: OpenSnapshot): SnapshotInfo {
  const { id, kind, parent, imageDigest, size, createdAt, env } = manifest
  return {
    id,
    kind,
    ...(parent === undefined ? {} : { parent: parent.id }),
    imageDigest,
    size,
    env: env ?? {},
    sizeBytes: allocatedBytes,
    createdAt,
  }
}
