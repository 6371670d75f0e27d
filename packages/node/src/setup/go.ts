import { chmod, glob, readdir, rename } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { z } from 'zod'
import { cacheDirectory } from '../cache.ts'
import { command } from './command.ts'
import { makeOnce } from './made.ts'
import { aptInstall, locate } from './packages.ts'

/**
 * Exactly one Go builds runsc, so that the same sources give the same bytes on every machine: snapshots name the digest of
 * the runsc that wrote them. It comes from the Go module proxy, as the module that the go command itself uses to switch
 * toolchains; the checksum is the one of Go's checksum database.
 */
export const GO_TOOLCHAIN = {
  version: '1.26.8',
  sum: 'h1:ZOmGe1OnfREDMIdb1Qi4G9JSuDPBLGExZMQ4nis1RXM=',
} as const

const Download = z.object({ Dir: z.string(), Sum: z.string() })

/** What every call of the go command gets. Where modules come from stays the user's choice. */
export const goEnvironment = () => ({
  HOME: process.env.HOME ?? homedir(),
  GOTOOLCHAIN: 'local',
  GOFLAGS: undefined,
  GOROOT: undefined,
  GOWORK: 'off',
  GO111MODULE: undefined,
})

const cachedGo = () => join(cacheDirectory(), `go${GO_TOOLCHAIN.version}`, 'bin', 'go')

async function versionOf(go: string, signal: AbortSignal): Promise<string | undefined> {
  try {
    const said = await command(go, ['env', 'GOVERSION'], { deadlineMs: 10_000, env: goEnvironment() }, signal)
    return said.trim().replace(/^go/, '')
  } catch {
    signal.throwIfAborted()
    return undefined
  }
}

/** The path of a go command of exactly the pinned version that is here already: on PATH or in the cache. */
export async function presentGo(signal: AbortSignal): Promise<string | undefined> {
  for (const go of [await locate('go'), await locate(cachedGo())])
    if (go && (await versionOf(go, signal)) === GO_TOOLCHAIN.version) return go
  return undefined
}

/** The path of a go command of exactly the pinned version; any older or newer one, or the distribution's, fetches it. */
export async function ensureGo(say: (line: string) => void, signal: AbortSignal): Promise<string> {
  const present = await presentGo(signal)
  if (present) return present
  if (!(await locate('go'))) await aptInstall(['golang-go'], say, signal)
  await makeOnce(dirname(dirname(cachedGo())), (scratch) => fetchToolchain(scratch, say, signal), signal)
  return cachedGo()
}

/** Downloads into the directory and gives where in it the toolchain is. */
async function fetchToolchain(scratch: string, say: (line: string) => void, signal: AbortSignal): Promise<string> {
  say(`go mod download golang.org/toolchain: Go ${GO_TOOLCHAIN.version}`)
  const said = await command(
    'go',
    ['mod', 'download', '-json', `golang.org/toolchain@v0.0.1-go${GO_TOOLCHAIN.version}.linux-amd64`],
    {
      cwd: '/',
      deadlineMs: 600_000,
      env: { ...goEnvironment(), GOMODCACHE: scratch, GOFLAGS: '-modcacherw' },
    },
    signal,
  )
  const download = Download.parse(JSON.parse(said))
  if (download.Sum !== GO_TOOLCHAIN.sum)
    throw new Error(
      `the downloaded Go ${GO_TOOLCHAIN.version} has the checksum ${download.Sum}, not ${GO_TOOLCHAIN.sum}`,
    )
  // A module holds no go.mod but its own and no mode bits; both are put back as the go command does it.
  for await (const file of glob('src/{,cmd/}_go.mod', { cwd: download.Dir }))
    await rename(join(download.Dir, file), join(download.Dir, dirname(file), 'go.mod'))
  for (const directory of ['bin', 'pkg/tool/linux_amd64'])
    for (const file of await readdir(join(download.Dir, directory)))
      await chmod(join(download.Dir, directory, file), 0o755)
  if ((await versionOf(join(download.Dir, 'bin', 'go'), signal)) !== GO_TOOLCHAIN.version)
    throw new Error(`the downloaded Go ${GO_TOOLCHAIN.version} does not run`)
  return download.Dir
}
