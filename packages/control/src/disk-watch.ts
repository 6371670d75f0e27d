import { asExecutionId, IceboxError, isError, type Node } from '@icebox/model'
import type { Cache } from './cache/cache.ts'
import { type Grower, Paces, planGrowth } from './growth.ts'
import type { Log } from './log.ts'

/** How often the free space is asked for: one system call. */
const LOOK_MS = 250
/** The disks of machines are looked at, too, while at its pace the disk would be full within so many seconds. */
const WARY_SECONDS = 300
/** And for so long after that, milliseconds. */
const WARY_MS = 10_000
const CALL_MS = 30_000
/** How long a machine is left alone that could neither be paused nor held, milliseconds. */
const RETRY_MS = 5000

interface Parts {
  cache: Cache
  node: Node
  /** Pauses the sandbox so that its disk is given back, and says why. */
  pause: (project: string, sandbox: string) => Promise<void>
  /** Notes in the sandbox why it stands still. */
  tell: (project: string, sandbox: string) => Promise<void>
  log: Log
  stopping: AbortSignal
}

/**
 * Keeps the disks of sandboxes from filling the disk of the host: before the reserve is touched the one that grows fastest is
 * paused, then the next. One whose save does not fit is held where it is, frozen, until it does. Between two looks a disk may grow by what
 * the host writes in that time; the reserve is for that.
 */
export class DiskWatch {
  readonly #parts: Parts
  /** Builds of templates, by their machines: what ends each. */
  readonly #builds = new Map<string, (why: IceboxError) => void>()
  readonly #paces = new Paces()
  /** Machines that stand still for want of room. */
  readonly #held = new Set<string>()
  /** Machines that are being paused or held, and since when others could not be. */
  readonly #busy = new Set<string>()
  readonly #failed = new Map<string, number>()
  #last: { freeBytes: number; at: number } | undefined
  #waryUntil = 0
  #timer: NodeJS.Timeout | undefined

  constructor(parts: Parts) {
    this.#parts = parts
    parts.stopping.addEventListener('abort', () => clearTimeout(this.#timer))
  }

  /** Watches the machine of a build until what it gives is disposed of. A build is not paused: `end` is told why it must end. */
  build(execution: string, end: (why: IceboxError) => void): Disposable {
    this.#builds.set(execution, end)
    return { [Symbol.dispose]: () => void this.#builds.delete(execution) }
  }

  start(): void {
    if (this.#parts.stopping.aborted) return
    this.#timer = setTimeout(() => {
      this.#look()
        .catch((error) => this.#parts.log('error', 'disk.look.failed', { error: IceboxError.from(error).message }))
        .finally(() => this.start())
    }, LOOK_MS).unref()
  }

  async #look(): Promise<void> {
    const { node } = this.#parts
    const at = performance.now()
    const { freeBytes } = node.space()
    const last = this.#last
    this.#last = { freeBytes, at }
    if (last !== undefined && at > last.at) {
      const pace = ((last.freeBytes - freeBytes) / (at - last.at)) * 1000
      if (pace > 0 && freeBytes < pace * WARY_SECONDS) this.#waryUntil = at + WARY_MS
    }
    for (const execution of this.#held) if (!this.#standsStill(execution)) this.#held.delete(execution)
    if (this.#held.size === 0 && at >= this.#waryUntil) {
      this.#paces.forget()
      return
    }
    const growers = await this.#measure(at)
    const room = node.space()
    const rest = growers.filter(({ execution }) => !this.#held.has(execution))
    const measure = planGrowth(room, rest)
    const endBuild = measure === undefined ? undefined : this.#builds.get(measure.execution)
    if (measure !== undefined && endBuild !== undefined) {
      this.#failed.set(measure.execution, at + RETRY_MS)
      this.#parts.log('warn', 'disk.build.end', { execution: measure.execution, ...room })
      endBuild(new IceboxError('NoSpace', 'its disk grew fastest while the disk of the host was about to be full'))
      return
    }
    if (measure?.do === 'pause') this.#pause(measure.execution)
    if (measure?.do === 'hold') await this.#hold(measure.execution)
    if (measure === undefined) {
      // One at a time, as each gives back the room of its disk.
      const next = growers.find(({ execution }) => this.#held.has(execution) && !this.#busy.has(execution))
      if (this.#busy.size === 0 && next !== undefined && next.pauseBytes <= room.freeBytes + room.reserveBytes)
        this.#pause(next.execution)
    }
  }

  #standsStill(execution: string): boolean {
    return this.#parts.node.machines().some((machine) => machine.execution === execution && machine.frozen)
  }

  /** Of machines that sandboxes run in, or builds, and nothing is being done about. */
  async #measure(at: number): Promise<Grower[]> {
    const { cache, node, stopping } = this.#parts
    const running = [...cache.all('Sandbox').where('state', 'running')]
      .map(({ execution }) => execution)
      .filter((execution) => execution !== undefined)
    const found = await Promise.all(
      [...running, ...this.#builds.keys()].map(async (execution) => {
        // It may end meanwhile.
        const usage = await node.usage(asExecutionId(execution), stopping).catch(() => undefined)
        return usage === undefined ? [] : [{ execution, ...usage }]
      }),
    )
    const usages = found.flat()
    const rates = this.#paces.sample(new Map(usages.map(({ execution, diskBytes }) => [execution, diskBytes])), at)
    for (const [execution, again] of this.#failed) if (again <= at) this.#failed.delete(execution)
    return usages
      .filter(({ execution }) => !this.#busy.has(execution) && !this.#failed.has(execution))
      .map(({ execution, diskBytes, memoryBytes }) => ({
        execution,
        diskBytes,
        rate: rates.get(execution) ?? 0,
        // A build has no save to fit.
        pauseBytes: this.#builds.has(execution) ? Number.POSITIVE_INFINITY : memoryBytes + diskBytes,
      }))
  }

  /** The one that runs in the machine. */
  #sandboxOf(execution: string): { project: string; sandbox: string } | undefined {
    for (const { state, namespace, name, ...its } of this.#parts.cache.all('Sandbox').where('execution', execution))
      if (state === 'running' && its.execution === execution) return { project: namespace, sandbox: name }
    return undefined
  }

  #pause(execution: string): void {
    const { log, pause, stopping } = this.#parts
    const found = this.#sandboxOf(execution)
    if (found === undefined) return
    const { project, sandbox } = found
    this.#busy.add(execution)
    log('warn', 'disk.pause', { sandbox, project, ...this.#parts.node.space() })
    pause(project, sandbox)
      .then(() => this.#held.delete(execution))
      .catch(async (error) => {
        if (isError(error, 'NotFound', 'InvalidState') || stopping.aborted) return
        log('error', 'disk.pause.failed', { sandbox, project, error: IceboxError.from(error).message })
        // What could not be saved must not go on growing either; unless something else is being done about it.
        if (isError(error, 'Conflict')) this.#failed.set(execution, performance.now() + RETRY_MS)
        else await this.#hold(execution)
      })
      .finally(() => this.#busy.delete(execution))
  }

  async #hold(execution: string): Promise<void> {
    const { log, node, tell } = this.#parts
    const found = this.#sandboxOf(execution)
    if (found === undefined) return
    const { project, sandbox } = found
    try {
      await node.freeze(asExecutionId(execution), AbortSignal.timeout(CALL_MS))
      this.#held.add(execution)
      log('warn', 'disk.hold', { sandbox, project, ...node.space() })
      await tell(project, sandbox)
    } catch (error) {
      this.#failed.set(execution, performance.now() + RETRY_MS)
      log('error', 'disk.hold.failed', { sandbox, project, error: IceboxError.from(error).message })
    }
  }
}
