import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { cacheDirectory } from '../../cache.ts'
import { CgroupTree } from '../../cgroup/cgroup.ts'
import { openImageStore } from '../../images/store.ts'
import { removeNetwork } from '../../network/namespace.ts'
import { ensureGuest } from '../../setup/guest.ts'
import { withLock } from '../../setup/lock.ts'
import { ensureRunsc } from '../../setup/runsc.ts'
import type { Installation } from '../conformance.ts'
import type { Driver, Machine } from '../driver.ts'
import { linkOrCopy } from './agent.ts'
import { gvisorDriver } from './gvisor.ts'
import type { GvisorConfig } from './host.ts'
import { findProcesses, killProcess } from './process.ts'
import { type MachineRecord, readRecord } from './record.ts'

const exec = promisify(execFile)

/** For tests. The image they run: made once and kept in the cache. */
export async function testImage(signal: AbortSignal): Promise<{ digest: string; path: (digest: string) => string }> {
  const directory = join(cacheDirectory(), 'test-images')
  await mkdir(directory, { recursive: true })
  return await withLock(
    `${directory}.lock`,
    async () => {
      const store = openImageStore({ directory, cacheDirectory: cacheDirectory() })
      const image = (await store.resolve('debian:bookworm')) ?? (await store.pull('debian:bookworm', () => {}, signal))
      return { digest: image.digest, path: (digest: string) => store.path(digest, 'erofs') }
    },
    signal,
  )
}

/** For tests. A driver with directories of its own, and a look at everything it may leave on the host. */
export class GvisorInstallation implements Installation {
  readonly programs: Pick<GvisorConfig, 'runsc' | 'guest'>
  readonly #runDirectories: string[] = []
  readonly #drivers: Driver[] = []
  readonly #dataDirectories: string[] = []
  dataDirectory = ''
  driver: Driver

  private constructor(programs: Pick<GvisorConfig, 'runsc' | 'guest'>, dataDirectory: string) {
    this.programs = programs
    this.driver = this.#open(dataDirectory)
  }

  static async make(signal: AbortSignal): Promise<GvisorInstallation> {
    const [runsc, guest, image] = await Promise.all([ensureRunsc(signal), ensureGuest(signal), testImage(signal)])
    const directory = await mkdtemp(join(tmpdir(), 'icebox-driver-'))
    await linkOrCopy(image.path(image.digest), join(directory, 'image'))
    return new GvisorInstallation({ runsc, guest }, directory)
  }

  /** Moves with the data directory. */
  get image(): string {
    return join(this.dataDirectory, 'image')
  }

  get runDirectory(): string {
    return this.#runDirectories.at(-1) ?? ''
  }

  #open(dataDirectory: string): Driver {
    this.dataDirectory = dataDirectory
    this.#dataDirectories.push(dataDirectory)
    this.#runDirectories.push(`/run/icebox/test-${randomBytes(6).toString('hex')}`)
    return this.restart()
  }

  restart(): Driver {
    const { dataDirectory, runDirectory } = this
    const { image } = this
    this.driver = gvisorDriver({ ...this.programs, dataDirectory, runDirectory, imagePath: () => image })
    this.#drivers.push(this.driver)
    return this.driver
  }

  async move(dataDirectory: string): Promise<void> {
    this.#open(dataDirectory)
  }

  async record(machine: Machine): Promise<MachineRecord> {
    const record = await readRecord(join(this.runDirectory, 'machines', machine.execution))
    if (!record) throw new Error(`${machine.execution} has no record`)
    return record
  }

  async crash(machine: Machine): Promise<void> {
    const { process } = await this.record(machine)
    if (process) await killProcess(process)
  }

  async smallDirectory(bytes: number): Promise<{ path: string; remove(): Promise<void> }> {
    const image = join(await mkdtemp(join(this.dataDirectory, 'small-')), 'image')
    await writeFile(image, '')
    await truncate(image, bytes)
    await exec('mkfs.ext4', ['-qF', image])
    const directory = `${image}.mounted`
    await mkdir(directory)
    await exec('mount', ['-o', 'loop', image, directory])
    const remove = async () => {
      await exec('umount', [directory])
      await rm(dirname(image), { recursive: true })
    }
    return { path: directory, remove }
  }

  async traces(): Promise<string[]> {
    const found: string[] = []
    for (const [index, run] of this.#runDirectories.entries()) {
      for (const { identity, arguments: words } of await findProcesses(`--root=${run}/`))
        found.push(`process ${identity.pid} ${words.join(' ')}`)
      const mounts = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n')
      found.push(...mounts.filter((line) => line.includes(run)).map((line) => `mount ${line}`))
      const cgroups = await CgroupTree.open(join('/icebox', basename(run)))
      found.push(...(await cgroups.list()).map((name) => `cgroup ${name}`))
      const directories = [...['machines', 'slots', 'runsc'].map((name) => join(run, name))]
      directories.push(
        join(this.#dataDirectories[index] ?? '', 'bundles'),
        join(this.#dataDirectories[index] ?? '', 'tmp'),
      )
      for (const directory of directories)
        found.push(...(await readdir(directory).catch(() => [])).map((name) => `file ${join(directory, name)}`))
    }
    return found
  }

  async remove(): Promise<void> {
    await Promise.allSettled(this.#drivers.map((driver) => driver.close()))
    for (const run of this.#runDirectories) {
      for (const { identity } of await findProcesses(`--root=${run}/`)) await killProcess(identity)
      const cgroups = await CgroupTree.open(join('/icebox', basename(run)))
      for (const name of await cgroups.list()) await cgroups.find(name).remove()
      await cgroups.removeParent()
      for (const kind of ['machines', 'slots'])
        for (const name of await readdir(join(run, kind)).catch(() => []))
          await removeNetwork(join(run, kind, name, 'network'))
      await rm(run, { recursive: true, force: true })
    }
    for (const directory of this.#dataDirectories) await rm(directory, { recursive: true, force: true })
  }
}
