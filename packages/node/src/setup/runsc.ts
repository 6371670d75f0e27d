import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { cacheDirectory } from '../cache.ts'
import { command, firstLine } from './command.ts'
import { ensureGo, GO_TOOLCHAIN, goEnvironment } from './go.ts'
import { makeOnce } from './made.ts'
import { locate } from './packages.ts'
import type { Step } from './step.ts'

const MODULE = 'gvisor.dev/gvisor'
const SOURCE = fileURLToPath(new URL('../../../../native/runsc/', import.meta.url))
const ENVIRONMENT = {
  CGO_ENABLED: '0',
  GOOS: 'linux',
  GOARCH: 'amd64',
  GOAMD64: 'v1',
  GOEXPERIMENT: undefined,
  GODEBUG: undefined,
}

export interface RunscBuild {
  /** Where the program is, or would be when it is built. */
  path: string
  /** gVisor's pseudo-version; what `runsc --version` prints. */
  version: string
}

const buildArguments = (version: string, output: string) => [
  'build',
  '-mod=readonly',
  '-trimpath',
  '-buildvcs=false',
  `-ldflags=-s -w -X ${MODULE}/runsc/version.version=${version}`,
  '-o',
  output,
  `${MODULE}/runsc`,
]

/** The one runsc that runs sandboxes with this version of Icebox. Its directory is named by everything that went into it. */
export async function runscBuild(): Promise<RunscBuild> {
  const [mod, sum] = await Promise.all(['go.mod', 'go.sum'].map((name) => readFile(join(SOURCE, name), 'utf8')))
  const version = new RegExp(`^\\s*(?:require )?${MODULE.replaceAll('.', '\\.')} (v\\S+)`, 'm').exec(mod ?? '')?.[1]
  if (!version) throw new Error(`${SOURCE}go.mod does not name a version of ${MODULE}`)
  const hash = createHash('sha256')
  hash.update(JSON.stringify([mod, sum, GO_TOOLCHAIN.version, ENVIRONMENT, buildArguments(version, '')]))
  const directory = `runsc-${version}-${hash.digest('hex').slice(0, 12)}`
  return { version, path: join(cacheDirectory(), directory, 'runsc') }
}

/**
 * The path of the pinned runsc; builds it when it is not in the cache: about a minute on two cores, and 2 GB of Go's own
 * caches. Whoever comes second waits for the first.
 */
export async function ensureRunsc(signal: AbortSignal, say: (line: string) => void = () => {}): Promise<string> {
  const { path, version } = await runscBuild()
  if (await locate(path)) return path
  const go = await ensureGo(say, signal)
  await makeOnce(
    dirname(path),
    async (scratch) => {
      const built = join(scratch, 'runsc')
      await command(
        go,
        buildArguments(version, built),
        { cwd: SOURCE, deadlineMs: 1_800_000, env: { ...goEnvironment(), ...ENVIRONMENT }, onLine: say },
        signal,
      )
      const said = await firstLine(built, ['--version'], signal)
      if (said !== `runsc version ${version}`) throw new Error(`the runsc just built says "${said}", not ${version}`)
      return scratch
    },
    signal,
  )
  return path
}

export const runscStep: Step = {
  name: 'runsc',
  why: 'runs sandboxes: gVisor, built from its Go module',
  remedy:
    'Check that the Go module proxy can be reached (`go env GOPROXY`) and that 3 GB of disk are free, then run this again.',
  async isDone() {
    const { path, version } = await runscBuild()
    return (await locate(path)) && version
  },
  async run(say, signal) {
    await ensureRunsc(signal, say)
    return `built ${(await runscBuild()).version}`
  },
}
