import { mkdir, readdir, readFile, rmdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { IceboxError } from '@icebox/model'
import { together } from '../together.ts'
import { sandboxCeiling } from './ceiling.ts'
import { type Layout, type Limits, layoutOf, type Setting } from './layout.ts'
import { cgroupMounts } from './mounts.ts'

const REMOVE_DEADLINE_MS = 10_000
const ATTEMPTS = 5

const errno = (thrown: unknown) => (thrown instanceof Error && 'code' in thrown ? thrown.code : undefined)
const absent = (thrown: unknown) => errno(thrown) === 'ENOENT' || errno(thrown) === 'ENODEV'

async function apply(settings: Setting[]): Promise<void> {
  for (const { file, value, optional } of settings) {
    try {
      await writeFile(file, value)
    } catch (thrown) {
      if (!optional) throw new IceboxError('Internal', `cannot write ${value} to ${file}: ${thrown}`, { cause: thrown })
    }
  }
}

/** The cores of a kernel list such as `0-3,5`. */
export function parseCores(list: string): number[] {
  return list
    .trim()
    .split(',')
    .flatMap((range) => {
      const [first = '', last = first] = range.split('-')
      if (!/^\d+$/.test(first)) return []
      return Array.from({ length: Number(last) - Number(first) + 1 }, (_, index) => Number(first) + index)
    })
}

/** The groups of one data directory, all under one parent. Version 1, version 2 and both at once (hybrid). */
export class CgroupTree {
  readonly #layout: Layout
  readonly #parent: string
  #host: { cores: string; memoryNodes: string } | undefined

  private constructor(layout: Layout, parent: string) {
    this.#layout = layout
    this.#parent = parent
  }

  /** `parent`: absolute, such as `/icebox/<hash>`. */
  static async open(parent: string): Promise<CgroupTree> {
    return new CgroupTree(layoutOf(await cgroupMounts()), parent)
  }

  /** All cores of the host, as the kernel lists them. */
  async hostCores(): Promise<string> {
    return (await this.#prepared()).cores
  }

  async #prepared(): Promise<{ cores: string; memoryNodes: string }> {
    for (let attempt = 1; !this.#host; attempt++) {
      try {
        this.#host = await this.#makeParent()
      } catch (thrown) {
        // Another server that ended may have tidied the shared parent away while it was empty.
        if (attempt === ATTEMPTS || !(thrown instanceof Error) || !absent(thrown.cause ?? thrown)) throw thrown
      }
    }
    return this.#host
  }

  async #makeParent(): Promise<{ cores: string; memoryNodes: string }> {
    const [cores = '', memoryNodes = ''] = await Promise.all(
      [this.#layout.host.cores, this.#layout.host.memoryNodes].map(async (file) =>
        (await readFile(file, 'utf8')).trim(),
      ),
    )
    const host = { cores, memoryNodes }
    const ancestors: string[] = []
    for (let path = this.#parent; path !== '/'; path = dirname(path)) ancestors.unshift(path)
    // Version 2 gives controllers from the top down, the top included; version 1 has cores at the top by itself.
    const top = this.#layout.delegation('/', host)
    await apply(top.filter(({ file }) => file.endsWith('cgroup.subtree_control')))
    for (const path of ancestors) {
      for (const directory of this.#layout.directories(path)) await mkdir(directory, { recursive: true })
      await apply(this.#layout.delegation(path, host))
    }
    // The topmost: it holds the sandboxes of every data directory of this host.
    const [all] = ancestors
    if (all !== undefined) await apply(this.#layout.ceiling(all, await sandboxCeiling()))
    return host
  }

  /** Makes the group, or sets the limits of the one that is there. */
  async make(name: string, limits: Limits): Promise<Cgroup> {
    const { memoryNodes } = await this.#prepared()
    const group = this.find(name)
    const create = () =>
      together(this.#layout.directories(group.path).map((directory) => mkdir(directory).catch(unlessExists)))
    try {
      await create()
    } catch (thrown) {
      if (errno(thrown) !== 'ENOENT') throw thrown
      // Somebody tidied the empty parent away.
      this.#host = undefined
      await this.#prepared()
      await create()
    }
    await apply(this.#layout.limits(group.path, limits, memoryNodes))
    return group
  }

  /** The group of this name, whether it exists or not. */
  find(name: string): Cgroup {
    return new Cgroup(this.#layout, join(this.#parent, name), () => this.#host?.memoryNodes ?? '0')
  }

  /** Names of the groups that exist, even in only one of the hierarchies. */
  async list(): Promise<string[]> {
    const found = await Promise.all(
      this.#layout.directories(this.#parent).map(async (directory) => {
        const entries = await readdir(directory, { withFileTypes: true }).catch(() => [])
        return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name)
      }),
    )
    return [...new Set(found.flat())]
  }

  /** Removes the parent when it is empty. */
  async removeParent(): Promise<void> {
    this.#host = undefined
    for (const directory of this.#layout.directories(this.#parent)) await rmdir(directory).catch(() => {})
    // The one above is shared with other data directories: it goes with the last of them.
    for (const directory of this.#layout.directories(dirname(this.#parent)))
      if (dirname(this.#parent) !== '/') await rmdir(directory).catch(() => {})
  }
}

const unlessExists = (thrown: unknown) => {
  if (errno(thrown) !== 'EEXIST') throw thrown
}

/** One group: the processes of one sandbox, with what they may use and what they have used. */
export class Cgroup {
  readonly #layout: Layout
  /** Absolute within the hierarchies: what runsc calls `cgroupsPath`. */
  readonly path: string
  readonly #memoryNodes: () => string

  constructor(layout: Layout, path: string, memoryNodes: () => string) {
    this.#layout = layout
    this.path = path
    this.#memoryNodes = memoryNodes
  }

  /** Changes the limits named. */
  async limit(limits: Partial<Limits>): Promise<void> {
    await apply(this.#layout.limits(this.path, limits, this.#memoryNodes()))
  }

  /** Memory without cached files. */
  async usage(): Promise<{ cpuSeconds: number; memoryBytes: number }> {
    const cpu = this.#layout.cpuUsage(this.path)
    const memory = this.#layout.memoryUsage(this.path)
    const [time = '', charged = '', statistics = ''] = await Promise.all(
      [cpu.file, memory.file, memory.statistics].map((file) => readFile(file, 'utf8')),
    )
    const cached = [...statistics.matchAll(/^(?:in)?active_file (\d+)$/gm)].reduce(
      (sum, [, bytes]) => sum + Number(bytes),
      0,
    )
    return { cpuSeconds: cpu.seconds(time), memoryBytes: Math.max(0, Number(charged) - cached) }
  }

  /** How many of its processes the kernel has killed for want of memory; 0 when the group is gone. */
  async oomKills(): Promise<number> {
    const text = await readFile(this.#layout.oom(this.path), 'utf8').catch(() => '')
    return Number(/^oom_kill (\d+)/m.exec(text)?.[1] ?? 0)
  }

  /** Process ids; none when the group is gone. Version 2 lists those of another process namespace as 0. */
  async processes(): Promise<number[]> {
    try {
      const text = await readFile(this.#layout.processes(this.path), 'utf8')
      return text
        .split('\n')
        .map(Number)
        .filter((pid) => pid > 0)
    } catch (thrown) {
      if (absent(thrown)) return []
      throw thrown
    }
  }

  /** Kills what is left in it and removes it. Removing what is not there succeeds. */
  async remove(): Promise<void> {
    const deadline = performance.now() + REMOVE_DEADLINE_MS
    for (let pause = 1; ; pause = Math.min(pause * 2, 50)) {
      for (const pid of await this.processes()) {
        try {
          process.kill(pid, 'SIGKILL')
        } catch {
          // It ended by itself.
        }
      }
      const left = await this.#removeDirectories()
      if (left === undefined) return
      if (performance.now() > deadline)
        throw new IceboxError('Internal', `the control group ${this.path} cannot be removed: ${left}`, { cause: left })
      await sleep(pause)
    }
  }

  /** The last failure, undefined when all are gone. */
  async #removeDirectories(): Promise<unknown> {
    let failure: unknown
    for (const directory of this.#layout.directories(this.path)) {
      await rmdir(directory).catch((thrown) => {
        if (!absent(thrown)) failure = thrown
      })
    }
    return failure
  }
}
