import { readdir, readFile, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'

/** Device and inode of a file, which another file has only once this one is gone. */
const identityOf = async (path: string): Promise<string | undefined> =>
  stat(path).then(
    ({ dev, ino }) => `${dev}:${ino}`,
    () => undefined,
  )

/** The files of this runsc and of the builds that lie beside it: machines outlive the build that started them. */
export async function runscBuilds(runsc: string): Promise<ReadonlySet<string>> {
  const builds = dirname(dirname(runsc))
  const beside = (await readdir(builds).catch(() => [])).map((name) => join(builds, name, basename(runsc)))
  const identities = await Promise.all([runsc, ...beside].map(identityOf))
  return new Set(identities.filter((identity) => identity !== undefined))
}

/**
 * Whether a process is a runsc that root has started. What it says in its arguments proves nothing: anybody on the host may say that.
 * (A sentry runs as nobody. It is known by its control group, into which root alone puts processes.)
 */
export async function isRunsc(pid: number, builds: ReadonlySet<string>): Promise<boolean> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '')
  const [real, effective] = /^Uid:\t(\d+)\t(\d+)/m.exec(status)?.slice(1) ?? []
  if (real !== '0' || effective !== '0') return false
  const program = await identityOf(`/proc/${pid}/exe`)
  return program !== undefined && builds.has(program)
}
