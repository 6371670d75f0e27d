import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, constants, openSync } from 'node:fs'
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { ExecEvent, ExecInput, Hello } from '@icebox/model'
import { mkfifo } from '@icebox/snapshot'
import { ensureGuest } from '../setup/guest.ts'
import { attachLink } from './attach.ts'
import type { GuestLink } from './link.ts'

/**
 * The agent becomes PID 1 of namespaces of its own, on a small root of its own: what tests ask of it cannot reach this machine.
 * The system's programs are there to read; the clock, which no namespace separates, it may not set.
 */
const ENTER = `set -e
root=$1 guest=$2
mount -t tmpfs -o mode=755,size=64m guest "$root"
cd "$root"
mkdir usr etc proc dev dev/pts dev/shm tmp root home home/tester small
for each in bin sbin lib lib64; do ln -s usr/$each $each; done
mount --bind /usr usr
mount -o remount,bind,ro usr
mount -t proc proc proc
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
mount -t tmpfs -o size=1m small small
ln -s pts/ptmx dev/ptmx
mknod -m 666 dev/null c 1 3; mknod -m 666 dev/zero c 1 5; mknod -m 666 dev/urandom c 1 9; mknod -m 666 dev/tty c 5 0
chmod 1777 tmp small
cat > etc/passwd <<'END'
root:x:0:0:root:/root:/bin/bash
tester:x:1234:4321:Tester:/home/tester:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
END
cat > etc/group <<'END'
root:x:0:
testers:x:4321:
helpers:x:5555:nobody,tester
nogroup:x:65534:
END
chown 1234:4321 home/tester
cp "$guest" guest
ip link set lo up
exec setpriv --bounding-set -sys_time chroot . /guest`

export const HELLO: Hello = {
  sandbox: 'guesttest',
  hostname: 'guesttest',
  machineId: '0123456789abcdef0123456789abcdef',
  env: { FROM_HELLO: 'yes' },
  defaults: { user: 'root', workingDir: '' },
}

/** For tests: a real agent on two FIFOs. */
export class TestGuest {
  readonly #directory: string
  readonly #process: ChildProcess
  readonly #links: GuestLink[] = []
  readonly paths: { in: string; out: string }

  private constructor(directory: string, process: ChildProcess) {
    this.#directory = directory
    this.#process = process
    this.paths = { in: join(directory, 'in'), out: join(directory, 'out') }
  }

  static async start(signal: AbortSignal): Promise<TestGuest> {
    const program = await ensureGuest(signal)
    const directory = await mkdtemp(join(tmpdir(), 'icebox-guest-'))
    const root = join(directory, 'root')
    await mkdir(root)
    const fifos = ['in', 'out'].map((name) => {
      const path = join(directory, name)
      mkfifo(path, 0o600)
      return openSync(path, constants.O_RDWR)
    })
    const process = spawn(
      'unshare',
      [
        ...['--pid', '--fork', '--kill-child', '--mount', '--uts', '--net', '--ipc'],
        ...['sh', '-c', ENTER, 'enter', root, program],
      ],
      { stdio: [fifos[0], fifos[1], 'inherit'] },
    )
    fifos.forEach(closeSync)
    await once(process, 'spawn')
    return new TestGuest(directory, process)
  }

  async attach(signal: AbortSignal): Promise<GuestLink> {
    const link = await attachLink(this.paths, signal)
    this.#links.push(link)
    return link
  }

  /** Attached, and greeted. */
  static async running(signal: AbortSignal): Promise<{ guest: TestGuest; link: GuestLink }> {
    const guest = await TestGuest.start(signal)
    try {
      const link = await guest.attach(signal)
      await link.hello(HELLO, signal)
      return { guest, link }
    } catch (error) {
      await guest.stop()
      throw error
    }
  }

  /** Kills it without a word. */
  crash(): void {
    this.#process.kill('SIGKILL')
  }

  async stop(): Promise<void> {
    for (const link of this.#links) link.detach()
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      this.#process.kill('SIGKILL')
      await once(this.#process, 'exit')
    }
    await rm(this.#directory, { recursive: true, force: true })
  }
}

export interface Ran {
  stdout: string
  stderr: string
  exit: (ExecEvent & { type: 'exit' })['exit'] | undefined
  gaps: (ExecEvent & { type: 'gap' })[]
}

export async function collect(events: AsyncIterable<ExecEvent>): Promise<Ran> {
  const parts = { stdout: [] as Uint8Array[], stderr: [] as Uint8Array[] }
  const ran: Ran = { stdout: '', stderr: '', exit: undefined, gaps: [] }
  for await (const event of events) {
    if (event.type === 'output') parts[event.stream].push(event.data)
    else if (event.type === 'gap') ran.gaps.push(event)
    else ran.exit = event.exit
  }
  ran.stdout = Buffer.concat(parts.stdout).toString()
  ran.stderr = Buffer.concat(parts.stderr).toString()
  return ran
}

/** Runs to the end; a string is a shell's. */
export async function ran(link: GuestLink, input: string | ExecInput, signal: AbortSignal): Promise<Ran> {
  const session = await link.exec(typeof input === 'string' ? { argv: ['sh', '-c', input] } : input, signal)
  return collect(session.events)
}

export async function* bytesOf(...parts: (string | Uint8Array)[]): AsyncGenerator<Uint8Array> {
  for (const part of parts) yield Buffer.from(part)
}
