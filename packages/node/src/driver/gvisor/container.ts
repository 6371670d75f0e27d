import { readFile, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { IceboxError, isId } from '@icebox/model'
import type { Cgroup } from '../../cgroup/cgroup.ts'
import { removeNetwork } from '../../network/namespace.ts'
import type { Host } from './host.ts'
import { hasOpen, isAlive, killProcess, type ProcessIdentity } from './process.ts'
import { callRunsc, wasKilled } from './runsc.ts'
import { AGENT_NAME } from './spec.ts'

const START_MS = 60_000
const RESTORE_MS = 600_000
const PAUSE_MS = 60_000
const SAVE_MS = 1_800_000
const CLOSE_MS = 60_000

export const rootOf = (host: Host, id: string) => join(host.roots, id)
export const bundleOf = (host: Host, id: string) => join(host.bundles, id)

/**
 * A runsc container and all of the host that is its: processes, control group, network namespace, bundle, FIFOs. Named by
 * its id everywhere but in the run directory, which moves when a slot becomes a machine.
 */
export class Container {
  readonly #host: Host
  readonly id: string
  readonly process: ProcessIdentity
  readonly cgroup: Cgroup
  /** Its run directory: in, out, log, network. */
  readonly directory: string

  constructor(host: Host, id: string, directory: string, process: ProcessIdentity) {
    this.#host = host
    this.id = id
    this.directory = directory
    this.process = process
    this.cgroup = host.cgroups.find(id)
  }

  get in(): string {
    return join(this.directory, 'in')
  }

  get out(): string {
    return join(this.directory, 'out')
  }

  get log(): string {
    return join(this.directory, 'log')
  }

  /** The same container in another run directory. */
  movedTo(directory: string): Container {
    return new Container(this.#host, this.id, directory, this.process)
  }

  isAlive(): Promise<boolean> {
    return isAlive(this.process)
  }

  start(signal: AbortSignal): Promise<void> {
    return this.#call(['start', this.id], START_MS, true, signal)
  }

  restore(image: string, signal: AbortSignal): Promise<void> {
    return this.#call(
      ['restore', '--detach', ...this.#direct(), `--image-path=${image}`, this.id],
      RESTORE_MS,
      true,
      signal,
    )
  }

  pause(signal: AbortSignal): Promise<void> {
    return this.#call(['pause', this.id], PAUSE_MS, false, signal)
  }

  resume(signal: AbortSignal): Promise<void> {
    return this.#call(['resume', this.id], PAUSE_MS, false, signal)
  }

  checkpoint(image: string, signal: AbortSignal): Promise<void> {
    const options = ['--leave-running', ...this.#direct(), `--image-path=${image}`]
    return this.#save(['checkpoint', ...options, this.id], image, signal)
  }

  /** The files of the root file system only. */
  checkpointFiles(image: string, signal: AbortSignal): Promise<void> {
    const options = ['--leave-running', ...this.#direct(), `--image-path=${image}`]
    return this.#save(['fscheckpoint', ...options, this.id], image, signal)
  }

  /**
   * The sentry finishes a save whatever becomes of the command, and a second one meanwhile would break it. So it is not
   * aborted, and when somebody killed the command, waited for until the sentry has closed the files. (Not after other failures:
   * then it has ended, and a file may stay open until the sentry collects its garbage.)
   */
  async #save(words: string[], image: string, signal: AbortSignal): Promise<void> {
    try {
      await this.#call(words, SAVE_MS, false, signal)
    } catch (thrown) {
      const end = performance.now() + CLOSE_MS
      if (wasKilled(thrown)) while (performance.now() < end && (await hasOpen(this.process, image))) await sleep(10)
      throw thrown
    }
    signal.throwIfAborted()
  }

  /** What runsc believes: `created`, `running`, `paused` or `stopped`. */
  async status(): Promise<string> {
    const file = join(rootOf(this.#host, this.id), `${this.id}_sandbox:${this.id}.state`)
    const state: unknown = JSON.parse(await readFile(file, 'utf8'))
    if (typeof state !== 'object' || state === null || !('status' in state)) throw new Error(`${file} has no status`)
    return String(state.status)
  }

  /** Bytes that the upper layer of its disk takes on the host. */
  async diskBytes(): Promise<number> {
    const { blocks } = await stat(join(bundleOf(this.#host, this.id), 'rootfs', `.gvisor.filestore.${this.id}`))
    return blocks * 512
  }

  /** The agent it was started with. */
  get agent(): string {
    return join(bundleOf(this.#host, this.id), 'agent', AGENT_NAME)
  }

  async destroy(): Promise<void> {
    await killProcess(this.process)
    await destroyContainer(this.#host, this.id, this.directory)
  }

  #direct(): string[] {
    return this.#host.direct ? ['--direct'] : []
  }

  #call(words: string[], deadlineMs: number, abortable: boolean, signal: AbortSignal): Promise<void> {
    return callRunsc(
      this.#host.runsc,
      {
        arguments: words,
        root: rootOf(this.#host, this.id),
        log: this.log,
        network: join(this.directory, 'network'),
        deadlineMs,
        abortable,
      },
      signal,
    )
  }
}

/**
 * Takes away everything that bears the container's name, and its run directory last. Doing it twice is the same as once.
 * Throws Internal for what is no id: as a part of a path, `..` would be the data directory.
 */
export async function destroyContainer(host: Host, id: string, directory?: string): Promise<void> {
  if (!isId(id)) throw new IceboxError('Internal', `${JSON.stringify(id)} is not the id of a container`)
  // First the processes: each of them could make something anew.
  await host.cgroups.find(id).remove()
  if (directory) await removeNetwork(join(directory, 'network'))
  await Promise.all([
    rm(rootOf(host, id), { recursive: true, force: true }),
    rm(bundleOf(host, id), { recursive: true, force: true }),
  ])
  if (directory) await rm(directory, { recursive: true, force: true })
}
