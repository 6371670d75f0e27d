import assert from 'node:assert/strict'
import { mkdtemp } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { type ExecSession, newExecutionId } from '@icebox/model'
import { hello, SIZE } from '../driver/conformance.ts'
import type { Machine } from '../driver/driver.ts'
import { GvisorInstallation, testImage } from '../driver/gvisor/testing.ts'
import type { GuestLink } from './link.ts'
import { collect, ran, TestGuest } from './testing.ts'

const signal = AbortSignal.timeout(240_000)

/** Waits for its child in every way there is and says what it sees; the child ends by itself. */
const PARENT = `use POSIX ":sys_wait_h"; $| = 1; $SIG{CHLD} = sub { print "SIGCHLD\\n" }; $SIG{CONT} = sub { print "SIGCONT\\n" };
my $child = fork; if (!$child) { $SIG{CONT} = "DEFAULT"; my $end = time + 4; 1 while time < $end; exit 7 }
print "ready\\n";
while (1) {
  my $pid = waitpid($child, WUNTRACED | 8); next if $pid < 0;
  print WIFSTOPPED($?) ? "stopped\\n" : WIFEXITED($?) ? "exited " . WEXITSTATUS($?) . "\\n" : WIFSIGNALED($?) ? "killed\\n" : "continued\\n";
  last if WIFEXITED($?) || WIFSIGNALED($?)
}`

/** Threads that count, each in a file of its own. */
const THREADS = `use threads; mkdir "/tmp/threads";
for my $n (1..4) { async { for (my $i = 0;; $i++) { open(my $f, ">", "/tmp/threads/$n.new"); print $f $i; close $f; rename("/tmp/threads/$n.new", "/tmp/threads/$n"); select undef, undef, undef, 0.001 } } }
sleep 1000`

/** Says the time, milliseconds, again and again. */
const CLOCK =
  'use Time::HiRes "time"; $| = 1; while (1) { printf("%d\\n", time * 1000); select undef, undef, undef, 0.001 }'
const CLOCK_ERROR = 20

/** What the clock said, until it said a time after `end`; then it is stopped. */
async function clockTimes(clock: ExecSession, end: number): Promise<number[]> {
  const times: number[] = []
  let rest = ''
  for await (const event of clock.events) {
    if (event.type === 'gap') assert.fail('a gap')
    if (event.type !== 'output') continue
    rest += Buffer.from(event.data).toString()
    const lines = rest.split('\n')
    rest = lines.pop() ?? ''
    times.push(...lines.map(Number))
    if ((times.at(-1) ?? 0) > end) break
  }
  await clock.kill('SIGKILL', signal)
  return times
}

interface Held {
  link: () => GuestLink
  /** Has the agent hold everything, looks, and lets go again. */
  whileHeld: <T>(look: () => Promise<T>) => Promise<T>
}

function holding({ link, whileHeld }: Held): void {
  const out = async (command: string) => (await ran(link(), command, signal)).stdout
  const until = async (command: string) => {
    while ((await ran(link(), command, signal)).exit?.exitCode !== 0) await sleep(10)
  }

  test('parents, shells and job control see nothing of it; a stopped job stays stopped', async () => {
    const parent = await link().exec({ argv: ['perl', '-e', PARENT] }, signal)
    const shell = await link().exec(
      { argv: ['bash', '--norc', '-i'], env: { PS1: '' }, pty: { cols: 80, rows: 24 }, stdin: true },
      signal,
    )
    // Once it is sleep: gVisor loses a SIGSTOP that comes while a process execs.
    const stop = 'sleep 1234 & until read -r _ c _ </proc/$!/stat && [ $c = "(sleep)" ]; do :; done; kill -STOP $!'
    await shell.writeStdin(Buffer.from(`set -o notify\n${stop}; sleep 3; echo foreground $?\n`))
    const script = link().exec(
      { argv: ['bash', '-c', 'sleep 3 & touch /tmp/waiting; wait $!; echo waited $?'] },
      signal,
    )
    await until('test -e /tmp/waiting')
    await until('for p in /proc/[0-9]*; do read -r s < $p/stat; case $s in *") T "*) exit 0;; esac; done; exit 1')
    for (let round = 0; round < 3; round++) await whileHeld(() => sleep(200))
    assert.equal((await collect((await script).events)).stdout, 'waited 0\n')
    const seen = await collect(parent.events)
    assert.equal(seen.stdout, 'ready\nSIGCHLD\nexited 7\n')
    await shell.writeStdin(Buffer.from('echo jobs:; jobs; kill -9 %1; exit\nexit\n'))
    const terminal = (await collect(shell.events)).stdout
    assert.match(terminal, /foreground 0\r\n/)
    assert.equal(terminal.match(/Stopped +sleep 3/), null, terminal)
    assert.match(terminal.split('jobs:\r\n').at(-1) ?? '', /Stopped +sleep 1234/)
  })

  test('every thread of every process stands still, and goes on; a crowd that forks too', async () => {
    const threads = await link().exec({ argv: ['perl', '-e', THREADS] }, signal)
    const crowd = await link().exec(
      {
        argv: ['sh', '-c', 'for i in 1 2 3 4 5; do (while :; do /bin/true; echo $i >> /tmp/crowd; done) & done; wait'],
      },
      signal,
    )
    const look = () =>
      out('cat /tmp/threads/[1-4]; wc -c < /tmp/crowd; cd /proc; for p in [0-9]*; do echo; done | wc -l')
    await until('test -s /tmp/threads/4 && test -s /tmp/crowd')
    const looks: string[] = []
    for (let round = 0; round < 5; round++) {
      const before = await look()
      await whileHeld(() => sleep(100))
      await until(`test "$(cat /tmp/threads/[1-4])" != "${before.split('\n')[0]}"`)
      looks.push(await look())
    }
    assert.equal(new Set(looks).size, looks.length)
    await threads.kill('SIGKILL', signal)
    await crowd.kill('SIGKILL', signal)
    await Promise.all([collect(threads.events), collect(crowd.events)])
  })

  test('nothing moves while it is held', async () => {
    const clock = await link().exec({ argv: ['perl', '-e', CLOCK] }, signal)
    for await (const event of clock.events) if (event.type === 'output') break
    const [from, to] = await whileHeld(async () => {
      const start = Date.now()
      await sleep(300)
      return [start, Date.now()] as const
    })
    const times = await clockTimes(clock, to)
    // The clocks are the same; they are read on two sides of the kernel.
    assert.deepEqual(
      times.filter((time) => time > from + CLOCK_ERROR && time < to - CLOCK_ERROR),
      [],
    )
  })

  test('a signal that comes at that moment is not lost', async () => {
    const caught = await link().exec(
      {
        argv: ['perl', '-e', '$| = 1; $SIG{NUM35} = sub { print "." }; print "ready\\n"; 1 while 1'],
      },
      signal,
    )
    for await (const event of caught.events) if (event.type === 'output') break
    for (let round = 0; round < 20; round++) {
      const sent = caught.kill('SIGRTMIN+1', signal)
      await whileHeld(async () => {})
      await sent
      // Perl tells two that come close together as one.
      for await (const event of caught.events) {
        assert.deepEqual(event.type === 'output' && Buffer.from(event.data).toString(), '.')
        break
      }
    }
    await caught.kill('SIGTERM', signal)
    assert.equal((await collect(caught.events)).stdout, '')
  })
}

describe('holding processes, on this kernel', { timeout: 240_000 }, () => {
  let guest: TestGuest
  let link: GuestLink
  before(async () => {
    const started = await TestGuest.running(signal)
    guest = started.guest
    link = started.link
  })
  after(() => guest?.stop())

  holding({
    link: () => link,
    async whileHeld(look) {
      await link.quiesce(signal)
      try {
        return await look()
      } finally {
        await link.release(signal)
      }
    },
  })

  test('a successor finds it held, and lets go', async () => {
    const session = await link.exec(
      { argv: ['sh', '-c', 'while :; do date +%s%N > /tmp/now; sleep 0.01; done'] },
      signal,
    )
    while ((await ran(link, 'test -s /tmp/now', signal)).exit?.exitCode !== 0);
    await link.quiesce(signal)
    link.detach()
    link = await guest.attach(signal)
    await sleep(200)
    await link.hello(hello('successor'), signal)
    const held = (await ran(link, 'cat /tmp/now', signal)).stdout
    while ((await ran(link, 'cat /tmp/now', signal)).stdout === held);
    const again = await link.attach(session.info.id, {}, signal)
    await again.kill('SIGKILL', signal)
    assert.equal((await collect(again.events)).exit?.signal, 'SIGKILL')
  })
})

describe('holding processes, under gVisor', { timeout: 240_000 }, () => {
  let installation: GvisorInstallation
  let machine: Machine
  let imageDigest: string
  before(async () => {
    imageDigest = (await testImage(signal)).digest
    installation = await GvisorInstallation.make(signal)
    await installation.driver.adopt(signal)
    machine = await installation.driver.boot(newExecutionId(), { imageDigest, size: SIZE }, signal)
    await machine.link.hello(hello('source'), signal)
  })
  after(() => installation?.remove())

  holding({
    link: () => machine.link,
    async whileHeld(look) {
      await machine.link.quiesce(signal)
      try {
        return await look()
      } finally {
        await machine.link.release(signal)
      }
    },
  })

  test('a copy goes on only after hello, the source at once', async () => {
    const clock = await machine.link.exec({ argv: ['perl', '-e', CLOCK], keepBytes: 10_000_000 }, signal)
    for await (const event of clock.events) if (event.type === 'output') break
    const directory = await mkdtemp(join(installation.dataDirectory, 'saved-'))
    await machine.link.quiesce(signal)
    const saved = Date.now()
    await machine.freeze(signal)
    await machine.save(directory, 'memory', signal)
    await machine.thaw(signal)
    await machine.link.release(signal)
    const spec = { imageDigest, size: SIZE }
    const copy = await installation.driver.restore(newExecutionId(), { directory, kind: 'memory' }, spec, signal)
    try {
      await sleep(300)
      const greeted = Date.now()
      await copy.link.hello(hello('copy'), signal)
      const times = await clockTimes(await copy.link.attach(clock.info.id, { stdout: 0 }, signal), greeted)
      assert.ok(times.some((time) => time < saved) && times.some((time) => time > greeted))
      assert.deepEqual(
        times.filter((time) => time > saved + CLOCK_ERROR && time < greeted - CLOCK_ERROR),
        [],
      )
      await clockTimes(await machine.link.attach(clock.info.id, {}, signal), greeted)
    } finally {
      await copy.kill(signal)
    }
  })
})
