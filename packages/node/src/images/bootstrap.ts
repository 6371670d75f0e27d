import { chmod, copyFile, mkdir, readdir, rename, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { IceboxError, type Progress } from '@icebox/model'
import { claimSpace, sync } from '@icebox/snapshot'
import { Turns } from '../turns.ts'
import { runProgram } from './program.ts'
import { Scratch } from './scratch.ts'

const DEADLINE_MS = 1_800_000
const QUERY_DEADLINE_MS = 30_000
/** What the smallest bootstrap takes while it is made: the tree, the packages and the tar. */
const NEEDED_BYTES = 600_000_000
/** What the bootstraps that are kept may take on disk. */
const CACHE_BYTES = 8_589_934_592
const ARCHITECTURE = 'amd64'
/** Of apt's and dpkg's messages the first says why, and some are very long. */
const MAX_ERROR = 300
const PUBLIC_MIRROR = 'http://deb.debian.org/debian'
const PUBLIC_SECURITY = 'http://deb.debian.org/debian-security'
/** Suites that have no separate updates and security archives. */
const ROLLING = ['sid', 'unstable']
/** The host's options of apt, in a root that is being made. */
const HOST_OPTIONS = 'etc/apt/apt.conf.d/99host'
/** Keys that the host's apt trusts, and Debian's own. */
const KEY_PLACES = ['/etc/apt', '/etc/apt/trusted.gpg.d', '/etc/apt/keyrings', '/usr/share/keyrings']

/** Where `bootstrapTar` keeps its tar. */
export const bootstrapFile = (suite: string, packages: string[], cacheDirectory: string): string =>
  join(cacheDirectory, 'bootstrap', `${[suite, ARCHITECTURE, ...packages].join('+')}.tar`)

/**
 * Makes a minimal Debian by mmdebstrap as a tar, which stays in the cache by suite and packages. Gives its path. One is made at a time.
 * It uses the mirrors, proxies, credentials and keys of the host's apt, because nothing else may be reachable from here; packages'
 * scripts run as root on the host. Throws `Unavailable`, `NoSpace`.
 */
export async function bootstrapTar(
  suite: string,
  packages: string[],
  cacheDirectory: string,
  progress: Progress,
  signal: AbortSignal,
): Promise<string> {
  const cached = bootstrapFile(suite, packages, cacheDirectory)
  if (await isCached(cached)) return cached
  // Whoever waited for the same finds it made.
  const make = async () => {
    if (!(await isCached(cached))) await makeTar(suite, packages, cached, cacheDirectory, progress, signal)
  }
  await turns.run(make, signal)
  return cached
}

const turns = new Turns(1)

async function makeTar(
  suite: string,
  packages: string[],
  cached: string,
  cacheDirectory: string,
  progress: Progress,
  signal: AbortSignal,
): Promise<void> {
  const scratch = await Scratch.create(join(cacheDirectory, 'tmp'))
  try {
    using _ = claimSpace(scratch.path, NEEDED_BYTES, `building debian:${suite}`)
    // apt downloads as a user of its own, who must be able to get here.
    await chmod(scratch.path, 0o755)
    const made = join(scratch.path, 'bootstrap.tar')
    const include = ['bash', 'ca-certificates', ...packages]
    await mmdebstrap({ suite, variant: 'minbase', include }, { tar: made }, scratch.path, progress, signal)
    // In the precision that noting a use keeps: the time says whether the tar has changed.
    await utimes(made, new Date(), new Date())
    await sync(made)
    await mkdir(dirname(cached), { recursive: true })
    await rename(made, cached)
    await trimBootstraps(cacheDirectory, CACHE_BYTES)
  } finally {
    await scratch.remove()
  }
}

/** Notes that it is in use, when it is there. */
async function isCached(file: string): Promise<boolean> {
  const found = await stat(file).catch(() => undefined)
  if (found === undefined) return false
  await utimes(file, new Date(), found.mtime)
  return true
}

/** Removes the bootstraps that have not been used for longest until the others are so many bytes at most. The last one used stays. */
export async function trimBootstraps(cacheDirectory: string, maxBytes: number): Promise<void> {
  const directory = join(cacheDirectory, 'bootstrap')
  const tars = []
  for (const name of await readdir(directory)) {
    const file = join(directory, name)
    const found = name.endsWith('.tar') ? await stat(file).catch(() => undefined) : undefined
    if (found !== undefined) tars.push({ file, bytes: found.size, usedAt: found.atimeMs })
  }
  let bytes = 0
  for (const [i, tar] of tars.sort((a, b) => b.usedAt - a.usedAt).entries()) {
    bytes += tar.bytes
    if (i > 0 && bytes > maxBytes) await rm(tar.file, { force: true })
  }
}

/** What of a Debian is installed. `extract` unpacks packages and runs none of their scripts: programs that only have to be there. */
export interface DebianRoot {
  suite: string
  variant: 'minbase' | 'extract'
  include: readonly string[]
}

/** Makes a Debian in an existing, empty directory, by mmdebstrap with the host's mirrors, as `bootstrapTar` does. */
export async function bootstrapDirectory(
  root: DebianRoot,
  directory: string,
  cacheDirectory: string,
  progress: Progress,
  signal: AbortSignal,
): Promise<void> {
  const scratch = await Scratch.create(join(cacheDirectory, 'tmp'))
  try {
    using _ = claimSpace(directory, NEEDED_BYTES, `building debian:${root.suite}`)
    for (const path of [scratch.path, directory]) await chmod(path, 0o755)
    await mmdebstrap(root, { directory }, scratch.path, progress, signal)
    // The variant `extract` runs no customize hook.
    await rm(join(directory, HOST_OPTIONS), { force: true })
  } finally {
    await scratch.remove()
  }
}

async function mmdebstrap(
  { suite, variant, include }: DebianRoot,
  output: { tar: string } | { directory: string },
  scratch: string,
  progress: Progress,
  signal: AbortSignal,
): Promise<void> {
  const [format, target] = 'tar' in output ? ['tar', output.tar] : ['directory', output.directory]
  const keyring = await gatherKeys(join(scratch, 'keyring'))
  const hostOptions = join(scratch, 'apt.conf')
  await writeFile(hostOptions, await hostAptOptions(signal))
  // There while packages are installed, and gone from the image.
  const inside = `"$1"/${HOST_OPTIONS}`
  const errors: string[] = []
  const onLine = (line: string) => {
    const step = /^I: ([a-z][^/]*?)\.{3}$/.exec(line)?.[1]
    if (step !== undefined) progress({ phase: `debian: ${step}` })
    else if (/^(E|W|Err:.*|dpkg: error.*): /.test(line)) errors.push(line)
  }
  try {
    await runProgram(
      'unshare',
      [
        // However it ends, no mount and no process of the bootstrap stays.
        ...['--mount', '--pid', '--fork', '--kill-child=KILL', '--mount-proc'],
        ...['mmdebstrap', '--mode=root', `--variant=${variant}`, `--format=${format}`, `--keyring=${keyring}`],
        ...[`--architectures=${ARCHITECTURE}`, ...include.map((name) => `--include=${name}`)],
        ...['doc', 'info', 'locale', 'lintian'].map((part) => `--dpkgopt=path-exclude=/usr/share/${part}/*`),
        '--dpkgopt=path-include=/usr/share/doc/*/copyright',
        ...[`--setup-hook=cp '${hostOptions.replaceAll("'", "'\\''")}' ${inside}`, `--customize-hook=rm -f ${inside}`],
        ...[suite, target, ...(await sources(suite, signal))],
      ],
      {
        packageName: 'util-linux mmdebstrap debian-archive-keyring',
        doing: `building debian:${suite}`,
        deadlineMs: DEADLINE_MS,
        env: { TMPDIR: scratch, LC_ALL: 'C.UTF-8', DEBIAN_FRONTEND: 'noninteractive' },
        onLine,
      },
      signal,
    )
  } catch (thrown) {
    if (!(thrown instanceof IceboxError) || thrown.code !== 'Internal') throw thrown
    throw new IceboxError(
      'Unavailable',
      `debian:${suite} could not be built: ${errors[0]?.slice(0, MAX_ERROR) ?? thrown.message}`,
      {
        cause: thrown,
        remedy:
          'Check that the packages named exist, that mmdebstrap and debian-archive-keyring are installed, and that `apt-get update` works on this machine.',
      },
    )
  }
}

/** One-line sources for the suite at the mirrors that the host uses for Debian, or at the public ones. */
async function sources(suite: string, signal: AbortSignal): Promise<string[]> {
  const format = '$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)'
  const said = await output('apt-get', ['indextargets', '--format', format, 'Created-By: Packages'], signal)
  const known = said.split('\n').map((line) => line.split(' '))
  // The origin is known only to a host that has fetched its package lists.
  const debian = known.filter(
    ([uri, , component, origin]) =>
      component === 'main' &&
      (origin === 'Debian' || (origin === '$(ORIGIN)' && /\/debian(-security)?\/?$/.test(uri ?? ''))),
  )
  const mirrorOf = (fits: (release: string) => boolean) => debian.find(([, release = '']) => fits(release))?.[0]
  const mirror =
    mirrorOf((release) => release === suite) ?? mirrorOf((release) => !release.includes('-')) ?? PUBLIC_MIRROR
  const security = mirrorOf((release) => release.endsWith('-security')) ?? PUBLIC_SECURITY
  if (ROLLING.includes(suite)) return [`deb ${mirror} ${suite} main`]
  return [
    `deb ${mirror} ${suite} main`,
    `deb ${mirror} ${suite}-updates main`,
    `deb ${security} ${suite}-security main`,
  ]
}

/** How the host's apt gets at the network, as a configuration file for another apt. */
export async function hostAptOptions(signal: AbortSignal): Promise<string> {
  const said = await output('apt-config', ['dump', '--format', '%F "%v";%n', 'Acquire'], signal)
  const options = said.split('\n').filter((line) => /^Acquire::(https?|Retries|Force|Check-)[^ ]* "(?!")/i.test(line))
  options.push('Dir::Etc::netrc "/etc/apt/auth.conf";', 'Dir::Etc::netrcparts "/etc/apt/auth.conf.d";')
  return `${options.join('\n')}\n`
}

async function gatherKeys(directory: string): Promise<string> {
  await mkdir(directory, { mode: 0o755 })
  for (const place of KEY_PLACES)
    for (const name of await readdir(place).catch(() => []))
      if (/\.(gpg|asc)$/.test(name) && (!place.startsWith('/usr/') || name === 'debian-archive-keyring.gpg')) {
        await copyFile(join(place, name), join(directory, name))
        await chmod(join(directory, name), 0o644)
      }
  return directory
}

/** What a query of the host prints; nothing when it is not a Debian. */
async function output(program: string, args: string[], signal: AbortSignal): Promise<string> {
  try {
    const options = {
      packageName: 'apt',
      doing: 'asking apt',
      deadlineMs: QUERY_DEADLINE_MS,
      env: { LC_ALL: 'C.UTF-8' },
    }
    return await runProgram(program, args, options, signal)
  } catch {
    signal.throwIfAborted()
    return ''
  }
}
