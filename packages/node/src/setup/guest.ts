import { createHash } from 'node:crypto'
import { copyFile, glob, mkdir, readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { cacheDirectory } from '../cache.ts'
import { command } from './command.ts'
import { makeOnce } from './made.ts'
import { locate } from './packages.ts'
import { cargo, GUEST_SOURCES, RUST } from './rust.ts'
import type { Step } from './step.ts'

const TARGET = 'x86_64-unknown-linux-gnu'
/** Static, because it runs in images that have no library at all; with glibc, because Debian has no other target. */
const RUSTFLAGS = '-C target-feature=+crt-static'

export interface GuestBuild {
  /** Where the program is, or would be when it is built. */
  path: string
  /** As its Cargo.toml says. */
  version: string
}

/** The guest agent of this checkout. Its directory is named by its sources. */
export async function guestBuild(): Promise<GuestBuild> {
  const files = await Array.fromAsync(glob('{Cargo.toml,Cargo.lock,build.rs,src/**/*.rs}', { cwd: GUEST_SOURCES }))
  const hash = createHash('sha256').update(JSON.stringify([RUST, RUSTFLAGS]))
  let version: string | undefined
  for (const file of files.sort()) {
    const text = await readFile(join(GUEST_SOURCES, file), 'utf8')
    if (file === 'Cargo.toml') version = /^version = "(.+)"$/m.exec(text)?.[1]
    hash.update(JSON.stringify([file, text]))
  }
  if (!version) throw new Error(`${GUEST_SOURCES}Cargo.toml does not name a version`)
  return { version, path: join(cacheDirectory(), `guest-${version}-${hash.digest('hex').slice(0, 12)}`, 'guest') }
}

/** The path of the guest agent; builds it by `cargo` of `rustStep` when it is not in the cache. Whoever comes second waits for the first. */
export async function ensureGuest(signal: AbortSignal, say: (line: string) => void = () => {}): Promise<string> {
  const { path } = await guestBuild()
  if (await locate(path)) return path
  await makeOnce(
    dirname(path),
    async (scratch) => {
      const objects = join(scratch, 'objects')
      const { program, args } = cargo(['build', '--release', '--target', TARGET], objects, { RUSTFLAGS })
      await command(program, args, { deadlineMs: 900_000, onLine: say }, signal)
      const made = join(scratch, 'made')
      await mkdir(made)
      await copyFile(join(objects, TARGET, 'release', 'guest'), join(made, 'guest'))
      return made
    },
    signal,
  )
  return path
}

export const guestStep: Step = {
  name: 'guest agent',
  why: 'is process 1 of every sandbox',
  remedy: 'Check that native/guest is as it was checked out and that 1 GB of disk is free, then run this again.',
  async isDone() {
    const { path, version } = await guestBuild()
    return (await locate(path)) && version
  },
  async run(say, signal) {
    await ensureGuest(signal, say)
    return `built ${(await guestBuild()).version}`
  },
}
