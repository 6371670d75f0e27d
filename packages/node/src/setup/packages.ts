import { constants } from 'node:fs'
import { access } from 'node:fs/promises'
import { delimiter, isAbsolute, join } from 'node:path'
import { command } from './command.ts'
import type { Step } from './step.ts'

/** A program or file that comes from the distribution. Whoever has it by another way needs no package. */
export interface Requirement {
  /** A program's name, or the absolute path of a file. */
  needs: string
  /** The Debian and Ubuntu package that has it. */
  package: string
  why: string
  /** Arguments that make the program print its version in the first line; absent for files. */
  version?: string[]
}

/** What making images and running sandboxes needs. */
export const RUNTIME_REQUIREMENTS: readonly Requirement[] = [
  { needs: 'mmdebstrap', package: 'mmdebstrap', why: 'builds debian: images', version: ['--version'] },
  {
    needs: '/usr/share/keyrings/debian-archive-keyring.gpg',
    package: 'debian-archive-keyring',
    why: 'checks the signatures of debian: images',
  },
  { needs: 'setpriv', package: 'util-linux', why: 'ends helpers together with Icebox', version: ['--version'] },
  { needs: 'xz', package: 'xz-utils', why: 'unpacks xz layers', version: ['--version'] },
  {
    needs: '/etc/ssl/certs/ca-certificates.crt',
    package: 'ca-certificates',
    why: 'checks the certificates of registries',
  },
]

/** What only the tests and the benchmarks need: other people's tools to compare with. */
export const TEST_REQUIREMENTS: readonly Requirement[] = [
  { needs: 'git', package: 'git', why: 'tells the tests which files are ours', version: ['--version'] },
  { needs: 'ps', package: 'procps', why: 'lists what runs on the host', version: ['--version'] },
  { needs: 'ip', package: 'iproute2', why: 'lists what a network namespace has', version: ['-V'] },
  { needs: 'setcap', package: 'libcap2-bin', why: 'gives files of images capabilities' },
  { needs: 'mount', package: 'mount', why: 'makes small disks to fill', version: ['--version'] },
  { needs: 'fsck.erofs', package: 'erofs-utils', why: 'checks images for gVisor', version: ['-V'] },
  { needs: 'mke2fs', package: 'e2fsprogs', why: 'makes file systems to compare with and to fill', version: ['-V'] },
  { needs: 'e2fsck', package: 'e2fsprogs', why: 'checks ext4 images', version: ['-V'] },
  { needs: 'cc', package: 'gcc', why: 'compiles the floor of the benchmark of exec', version: ['--version'] },
  { needs: '/usr/lib/x86_64-linux-gnu/libc.a', package: 'libc6-dev', why: 'links that floor statically' },
  { needs: 'skopeo', package: 'skopeo', why: 'makes and copies OCI images', version: ['--version'] },
  { needs: 'umoci', package: 'umoci', why: 'changes and unpacks OCI images', version: ['--version'] },
  {
    needs: 'docker-registry',
    package: 'docker-registry',
    why: 'is the registry that images are pulled from',
    version: ['--version'],
  },
  { needs: 'getfattr', package: 'attr', why: 'reads extended attributes', version: ['--version'] },
  {
    needs: 'protoc',
    package: 'protobuf-compiler',
    why: 'generates code from the façades’ protocols',
    version: ['--version'],
  },
  {
    needs: '/usr/include/google/protobuf/timestamp.proto',
    package: 'libprotobuf-dev',
    why: 'has the messages that those protocols import',
  },
]

/** The absolute path of a program on PATH, or of a file that exists; undefined when it is missing. */
export async function locate(needs: string): Promise<string | undefined> {
  const candidates = isAbsolute(needs)
    ? [needs]
    : (process.env.PATH ?? '').split(delimiter).map((directory) => join(directory, needs))
  for (const candidate of candidates)
    try {
      await access(candidate, isAbsolute(needs) ? constants.R_OK : constants.X_OK)
      return candidate
    } catch {
      // Not this one.
    }
  return undefined
}

/** The packages of the requirements that are missing, without repetition. */
export async function missingPackages(requirements: readonly Requirement[]): Promise<string[]> {
  const missing = new Set<string>()
  for (const requirement of requirements) if (!(await locate(requirement.needs))) missing.add(requirement.package)
  return [...missing]
}

/** Installs Debian or Ubuntu packages. Needs root and apt-get. */
export async function aptInstall(packages: string[], say: (line: string) => void, signal: AbortSignal): Promise<void> {
  if (!(await locate('apt-get'))) throw new Error(`there is no apt-get here to install ${packages.join(' ')}`)
  if (process.getuid?.() !== 0) throw new Error(`only root can install ${packages.join(' ')}`)
  const apt = (args: string[]) =>
    command(
      'apt-get',
      ['-q', '-y', '-o', 'DPkg::Lock::Timeout=600', '-o', 'Acquire::Retries=3', ...args],
      { deadlineMs: 1_200_000, env: { DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C.UTF-8' }, onLine: say },
      signal,
    )
  try {
    await apt(['update'])
  } catch (failure) {
    // One foreign source that does not answer must not stop the others: what matters is whether the install succeeds.
    signal.throwIfAborted()
    say(`apt-get update: ${failure instanceof Error ? failure.message : failure}`)
  }
  await apt(['install', '--no-install-recommends', ...packages])
}

/** The step that installs what is missing of the requirements. */
export function packagesStep(name: string, why: string, requirements: readonly Requirement[]): Step {
  return {
    name,
    why,
    remedy: `Install these as root, then run this again: apt-get update && apt-get install ${[...new Set(requirements.map((requirement) => requirement.package))].join(' ')}`,
    async isDone() {
      return (await missingPackages(requirements)).length === 0 ? `all ${requirements.length} found` : undefined
    },
    async run(say, signal) {
      const packages = await missingPackages(requirements)
      await aptInstall(packages, say, signal)
      const still = await missingPackages(requirements)
      if (still.length > 0)
        throw new Error(`apt-get succeeded but what these should bring is still missing: ${still.join(', ')}`)
      return `installed ${packages.join(' ')}`
    },
  }
}
