import { createHash } from 'node:crypto'
import { copyFile, glob, readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { cacheDirectory } from '../cache.ts'
import { command } from './command.ts'
import { makeOnce } from './made.ts'
import { locate } from './packages.ts'
import type { Step } from './step.ts'

const SOURCE = fileURLToPath(new URL('../../../../native/guest/', import.meta.url))
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
  const files = await Array.fromAsync(glob('{Cargo.toml,Cargo.lock,build.rs,src/**/*.rs}', { cwd: SOURCE }))
  const hash = createHash('sha256').update(RUSTFLAGS)
  let version: string | undefined
  for (const file of files.sort()) {
    const text = await readFile(join(SOURCE, file), 'utf8')
    if (file === 'Cargo.toml') version = /^version = "(.+)"$/m.exec(text)?.[1]
    hash.update(JSON.stringify([file, text]))
  }
  if (!version) throw new Error(`${SOURCE}Cargo.toml does not name a version`)
  return { version, path: join(cacheDirectory(), `guest-${version}-${hash.digest('hex').slice(0, 12)}`, 'guest') }
}

/** The path of the guest agent; builds it when it is not in the cache. Whoever comes second waits for the first. */
export async function ensureGuest(signal: AbortSignal, say: (line: string) => void = () => {}): Promise<string> {
  const { path } = await guestBuild()
  if (await locate(path)) return path
  await makeOnce(
    dirname(path),
    async (scratch) => {
      // What cargo has compiled stays in the cache, so that the next change compiles only itself.
      const objects = join(cacheDirectory(), 'guest-objects')
      await command(
        'cargo',
        [
          'build',
          '--release',
          '--locked',
          '--offline',
          '--target',
          TARGET,
          '--manifest-path',
          join(SOURCE, 'Cargo.toml'),
        ],
        {
          deadlineMs: 900_000,
          env: { RUSTFLAGS, CARGO_TARGET_DIR: objects, CARGO_TERM_COLOR: 'never' },
          onLine: say,
        },
        signal,
      )
      await copyFile(join(objects, TARGET, 'release', 'guest'), join(scratch, 'guest'))
      return scratch
    },
    signal,
  )
  return path
}

export const guestStep: Step = {
  name: 'guest agent',
  why: 'is process 1 of every sandbox',
  remedy: 'Check that `cargo build` works in native/guest, then run this again.',
  async isDone() {
    const { path, version } = await guestBuild()
    return (await locate(path)) && version
  },
  async run(say, signal) {
    await ensureGuest(signal, say)
    return `built ${(await guestBuild()).version}`
  },
}
