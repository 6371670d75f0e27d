import { readdir, readFile, readlink, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { isId } from '@icebox/model'
import { findProcesses, isAlive, type ListedProcess } from './process.ts'

/** What the kernel adds to the path of a program whose file was removed since. */
const DELETED = ' (deleted)'

/** The builds of runsc beside this one: a machine outlives the server, and with it the build, that started it. */
export class RunscBuilds {
  readonly #name: string
  /** Holds one directory for each build. */
  readonly #cache: string
  readonly #files: ReadonlySet<string>
  readonly #mounts: string

  private constructor(runsc: string, files: ReadonlySet<string>, mounts: string) {
    this.#name = basename(runsc)
    this.#cache = dirname(dirname(runsc))
    this.#files = files
    this.#mounts = mounts
  }

  static async beside(runsc: string): Promise<RunscBuilds> {
    const cache = dirname(dirname(runsc))
    const builds = (await readdir(cache).catch(() => [])).filter(isBuild)
    const paths = [runsc, ...builds.map((build) => join(cache, build, basename(runsc)))]
    const files = await Promise.all(paths.map(fileOf))
    return new RunscBuilds(runsc, new Set(files.filter((file) => file !== '')), await readlink('/proc/self/ns/mnt'))
  }

  /**
   * Whether root runs one of the builds in the process. Arguments prove nothing: everybody chooses their own. The file
   * itself is compared, since a path means something else in a container; that of a removed build is believed only of
   * processes that see the same mounts as this one, which only root of this host does as root.
   */
  async run({ identity: { pid } }: ListedProcess): Promise<boolean> {
    const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '')
    if (!status.split('\n').includes('Uid:\t0\t0\t0\t0')) return false
    const link = `/proc/${pid}/exe`
    if (this.#files.has(await fileOf(link))) return true
    const path = await readlink(link).catch(() => '')
    if (!path.endsWith(DELETED)) return false
    const file = path.slice(0, -DELETED.length)
    return (
      basename(file) === this.#name &&
      isBuild(basename(dirname(file))) &&
      dirname(dirname(file)) === this.#cache &&
      (await readlink(`/proc/${pid}/ns/mnt`).catch(() => '')) === this.#mounts
    )
  }
}

const isBuild = (name: string) => name.startsWith('runsc-')

/** Empty when there is none. */
async function fileOf(path: string): Promise<string> {
  return stat(path).then(
    ({ dev, ino }) => `${dev}:${ino}`,
    () => '',
  )
}

/**
 * The runsc commands and gofers of root on the host, by the container they were started for. runsc is told the container's own
 * state directory in each call. Sentries, which are not root, are known by their record and their control group.
 */
export async function processesByContainer(host: {
  runsc: string
  roots: string
}): Promise<Map<string, ListedProcess[]>> {
  const prefix = `--root=${host.roots}/`
  const builds = await RunscBuilds.beside(host.runsc)
  const found = new Map<string, ListedProcess[]>()
  for (const process of await findProcesses(prefix)) {
    const id = process.arguments.find((word) => word.startsWith(prefix))?.slice(prefix.length) ?? ''
    if (!isId(id) || !(await builds.run(process))) continue
    // What was looked at must be what was found: the number may have gone to another process meanwhile.
    if (!(await isAlive(process.identity))) continue
    found.set(id, [...(found.get(id) ?? []), process])
  }
  return found
}
