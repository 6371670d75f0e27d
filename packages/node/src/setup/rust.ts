import { createHash } from 'node:crypto'
import { mkdir, symlink } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { cacheDirectory } from '../cache.ts'
import { bootstrapDirectory } from '../images/bootstrap.ts'
import { firstLine } from './command.ts'
import { makeOnce } from './made.ts'
import { locate } from './packages.ts'
import type { Step } from './step.ts'
import { versionIn } from './version.ts'

/**
 * Exactly one Rust builds and tests the guest agent, on every machine: the oldest that is promised. It is Debian 12's, with
 * the C compiler that it links by, in a root of its own; the machine's Rust, older or newer, is not used.
 */
export const RUST = { version: '1.63.0', suite: 'bookworm', packages: ['cargo', 'rustc'] } as const

/** Where Cargo.toml of the guest agent is. */
export const GUEST_SOURCES = fileURLToPath(new URL('../../../../native/guest/', import.meta.url))
/** Mount points in the root: the sources, and what cargo compiles. */
const [SOURCES, OBJECTS] = ['/sources', '/objects']
/** What the root has of the machine. */
const SHARED = ['/dev', '/proc']
/** Empty for each command: cargo reads settings from its home, which must not be anybody else's. */
const HOME = '/home'
const MOUNT_POINTS = [SOURCES, OBJECTS, ...SHARED, HOME]

function rustRoot(): string {
  const hash = createHash('sha256').update(JSON.stringify([RUST, MOUNT_POINTS]))
  return join(cacheDirectory(), `rust-${RUST.version}-${hash.digest('hex').slice(0, 12)}`)
}
const rustc = () => join(rustRoot(), 'usr/bin/rustc')

/** The version of the Rust that is there already. */
export const presentRust = async (): Promise<string | undefined> =>
  (await locate(rustc())) === undefined ? undefined : RUST.version

/** Enters the root in a mount namespace of its own, so that no mount outlives the command. */
const ENTER = `
root=$1 sources=$2 objects=$3
shift 3
mkdir -p "$objects"
mount --bind "$sources" "$root${SOURCES}"
mount --bind "$objects" "$root${OBJECTS}"
for shared in ${SHARED.join(' ')}; do mount --rbind "$shared" "$root$shared"; done
mount -t tmpfs tmpfs "$root${HOME}"
exec env -i "$@"`

/**
 * The program and arguments that run cargo, offline, with the pinned Rust on the guest agent's sources. `objects` is the
 * directory on the machine that it compiles into; made when absent, and of these sources alone: cargo takes files that are older
 * than what it compiled last for unchanged. Needs root.
 */
export function cargo(args: string[], objects: string, env: Record<string, string> = {}) {
  const environment = {
    PATH: '/usr/bin:/usr/sbin:/bin:/sbin',
    HOME,
    TMPDIR: HOME,
    CARGO_TARGET_DIR: OBJECTS,
    CARGO_TERM_COLOR: 'never',
    ...env,
  }
  const settings = Object.entries(environment).map(([name, value]) => `${name}=${value}`)
  return {
    program: 'unshare',
    args: [
      ...['--mount', 'sh', '-euc', ENTER, 'rust', rustRoot(), GUEST_SOURCES, objects],
      ...[...settings, 'chroot', rustRoot(), 'cargo', ...args],
      ...['--locked', '--offline', '--manifest-path', `${SOURCES}/Cargo.toml`],
    ],
  }
}

async function makeRoot(root: string, say: (line: string) => void, signal: AbortSignal): Promise<string> {
  const debian = { suite: RUST.suite, variant: 'extract', include: RUST.packages } as const
  await bootstrapDirectory(debian, root, cacheDirectory(), ({ phase }) => say(phase), signal)
  for (const place of MOUNT_POINTS) await mkdir(join(root, place), { recursive: true })
  // The name by which rustc calls its linker, which a script of gcc's would make.
  await symlink('gcc', join(root, 'usr/bin/cc'))
  const said = (await firstLine('chroot', [root, 'rustc', '--version'], signal)) ?? 'nothing'
  if (versionIn(said) !== RUST.version)
    throw new Error(`Debian ${RUST.suite}'s rustc says "${said}", not ${RUST.version}`)
  return root
}

export const rustStep: Step = {
  name: 'Rust',
  why: `builds the guest agent: Debian ${RUST.suite}'s rustc, in a root of its own`,
  remedy: 'Check that `apt-get update` works on this machine and that 2 GB of disk are free, then run this again.',
  isDone: presentRust,
  async run(say, signal) {
    if (process.getuid?.() !== 0) throw new Error('only root can install Debian’s Rust in a root of its own')
    await makeOnce(rustRoot(), (scratch) => makeRoot(scratch, say, signal), signal)
    return `fetched Rust ${RUST.version}`
  },
}
