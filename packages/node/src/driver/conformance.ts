import assert from 'node:assert/strict'
import { mkdir, mkdtemp, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  type ExecInput,
  type Hello,
  IceboxError,
  isError,
  type MachineSpec,
  newExecutionId,
  type SnapshotKind,
} from '@icebox/model'
import type { GuestLink } from '../link/link.ts'
import type { Driver, Machine } from './driver.ts'

/** One installation of a driver: its directories, and what it leaves on the host. */
export interface Installation {
  driver: Driver
  /** Holds all that is durable, also what machines are saved to. */
  dataDirectory: string
  /** The same directories under a driver that knows nothing yet, as after a restart. The old one is to be closed or forgotten. */
  restart(): Driver
  /** The data directory is found at another path from now on, with a run directory of its own. */
  move(dataDirectory: string): Promise<void>
  /** Ends the process that is the machine, as a crash would. */
  crash(machine: Machine): Promise<void>
  /** A directory whose file system holds so many bytes and no more. */
  smallDirectory(bytes: number): Promise<{ path: string; remove(): Promise<void> }>
  /** Processes, mounts, namespaces, control groups and files of machines that are there now, for people. */
  traces(): Promise<string[]>
  /** Takes everything away. */
  remove(): Promise<void>
}

export interface Harness {
  /** A small Debian with a shell and coreutils. */
  imageDigest(signal: AbortSignal): Promise<string>
  install(signal: AbortSignal): Promise<Installation>
}

export const SIZE = { cpu: 1, memoryMiB: 256, diskMiB: 512 }
const DEADLINE_MS = 240_000
const TOLD_MS = 5_000

export const hello = (sandbox: string): Hello => ({
  sandbox,
  hostname: sandbox,
  machineId: '0123456789abcdef0123456789abcdef',
  env: {},
  defaults: { user: 'root', workingDir: '/root' },
})

export interface Ran {
  stdout: string
  stderr: string
  code: number | undefined
}

export async function run(link: GuestLink, input: string | ExecInput, signal: AbortSignal): Promise<Ran> {
  const request = typeof input === 'string' ? { argv: ['/bin/sh', '-c', input] } : input
  const session = await link.exec(request, signal)
  const chunks = { stdout: [] as Uint8Array[], stderr: [] as Uint8Array[] }
  let code: number | undefined
  for await (const event of session.events) {
    if (event.type === 'output') chunks[event.stream].push(event.data)
    if (event.type === 'exit') code = event.exit.exitCode
  }
  const text = (parts: Uint8Array[]) => Buffer.concat(parts).toString()
  return { stdout: text(chunks.stdout), stderr: text(chunks.stderr), code }
}

/** The output of a command that must succeed, without the line's end. */
export async function say(machine: Machine, command: string, signal: AbortSignal): Promise<string> {
  const ran = await run(machine.link, command, signal)
  assert.equal(ran.code, 0, `${command}: ${ran.stdout}${ran.stderr}`)
  return ran.stdout.trimEnd()
}

/** What any driver must do. */
export function driverConformance(name: string, harness: Harness): void {
  describe(`driver ${name}`, { timeout: DEADLINE_MS * 4 }, () => {
    let spec: MachineSpec
    let installation: Installation
    let driver: Driver
    const signal = AbortSignal.timeout(DEADLINE_MS * 4)

    before(async () => {
      spec = { imageDigest: await harness.imageDigest(signal), size: SIZE }
      installation = await harness.install(signal)
      driver = installation.driver
      assert.deepEqual(await driver.adopt(signal), { machines: [], lost: [] })
    })
    after(() => installation?.remove())

    const boot = async (of = spec) => {
      const machine = await driver.boot(newExecutionId(), of, signal)
      await machine.link.hello(hello(machine.execution), signal)
      return machine
    }
    const save = async (machine: Machine, kind: SnapshotKind, into = installation.dataDirectory) => {
      const directory = await mkdtemp(join(into, 'saved-'))
      await machine.link.quiesce(signal)
      await machine.freeze(signal)
      try {
        const saved = await machine.save(directory, kind, signal)
        return { directory, kind, saved }
      } finally {
        await machine.thaw(signal)
        await machine.link.release(signal)
      }
    }
    const restore = async (from: { directory: string; kind: SnapshotKind }) => {
      const machine = await driver.restore(newExecutionId(), from, spec, signal)
      await machine.link.hello(hello(machine.execution), signal)
      return machine
    }
    const forget = (directory: string) => rm(directory, { recursive: true, force: true })
    const nothingLeft = async () => assert.deepEqual(await installation.traces(), [])

    test('the driver says it is usable and what its snapshots depend on', async () => {
      const probe = await driver.probe(signal)
      assert.equal(probe.usable, true, probe.reason)
      const facts = await driver.facts(signal)
      assert.equal(facts.name, driver.name)
      assert.equal(facts.version, probe.version)
      assert.equal(facts.digest, probe.digest)
      assert.match(facts.digest, /^[0-9a-f]{64}$/)
      assert.deepEqual(facts.cpuFeatures, facts.cpuFeatures.toSorted())
      assert.ok(facts.cpuFeatures.length > 0)
    })

    test('a booted machine answers and has the size that was asked for', async () => {
      const machine = await boot()
      try {
        assert.equal(await say(machine, 'cat /etc/debian_version | wc -l', signal), '1')
        assert.equal(await say(machine, 'nproc', signal), '1')
        const kib = Number(await say(machine, "sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo", signal))
        assert.equal(kib, SIZE.memoryMiB * 1024)
        assert.equal(Number(await say(machine, 'df --output=size -k / | tail -1', signal)), SIZE.diskMiB * 1024)
        assert.equal(await say(machine, 'cat /sys/class/net/lo/operstate 2>/dev/null || echo there', signal), 'there')
        const usage = await machine.usage(signal)
        assert.ok(usage.cpuSeconds > 0 && usage.memoryBytes > 0, JSON.stringify(usage))
        await say(machine, 'dd if=/dev/zero of=/filled bs=1M count=20 2>/dev/null; sync', signal)
        assert.ok((await machine.usage(signal)).diskBytes >= 20 << 20)
      } finally {
        await machine.kill(signal)
      }
      await nothingLeft()
    })

    test('a save leaves the machine as it was; restores go on with its memory and files, each for itself', async () => {
      const machine = await boot()
      const machines = [machine]
      try {
        await say(machine, 'echo on-disk > /root/file; echo in-memory > /dev/shm/file', signal)
        const counter = await machine.link.exec(
          { argv: ['/bin/sh', '-c', 'n=0; while :; do n=$((n+1)); echo $n > /tmp/count; sleep 0.05; done'] },
          signal,
        )
        counter.detach()
        const count = async (of: Machine) => Number(await say(of, 'cat /tmp/count', signal))
        const grows = async (of: Machine, from: number) => {
          while ((await count(of)) <= from) await sleep(20)
        }
        while ((await run(machine.link, 'test -s /tmp/count', signal)).code !== 0) await sleep(20)
        await grows(machine, 5)
        const memory = await save(machine, 'memory')
        assert.ok(memory.saved.files.length > 0)
        assert.match(memory.saved.agentDigest, /^sha256:[0-9a-f]{64}$/)
        const at = await count(machine)
        await grows(machine, at)
        const [one, two] = await Promise.all([restore(memory), restore(memory)])
        machines.push(one, two)
        for (const child of [one, two]) {
          const execs = await child.link.listExecs(signal)
          assert.ok(
            execs.some(({ id, exit }) => id === counter.info.id && !exit),
            'its processes go on',
          )
          const from = await count(child)
          assert.ok(from >= 5, `goes on from ${from}`)
          await grows(child, from)
          assert.equal(await say(child, 'cat /root/file /dev/shm/file', signal), 'on-disk\nin-memory')
        }
        await say(one, 'echo one > /root/file; rm /dev/shm/file', signal)
        assert.equal(await say(two, 'cat /root/file /dev/shm/file', signal), 'on-disk\nin-memory')
        assert.equal(await say(machine, 'cat /root/file /dev/shm/file', signal), 'on-disk\nin-memory')
        assert.equal(await say(one, 'hostname', signal), one.execution)
        assert.notEqual(one.execution, two.execution)
        await forget(memory.directory)
      } finally {
        await Promise.all(machines.map((each) => each.kill(signal)))
      }
      await nothingLeft()
    })

    test('a filesystem snapshot keeps files, deletions and attributes, and no process', async () => {
      const machine = await boot()
      let child: Machine | undefined
      try {
        const prepare = `set -e
          mkdir -p /root/d/e; echo hello > /root/d/f; ln /root/d/f /root/d/hard; ln -s ../x /root/d/soft; mkfifo /root/d/fifo
          chown 1234:4321 /root/d/f; chmod 4751 /root/d/f; chmod 1777 /root/d/e; touch -d '2001-02-03 04:05:06' /root/d/f /root/d/e
          perl -e '($f, $k, $v) = ("/root/d/f", "user.note", "kept"); syscall(188, $f, $k, $v, 4, 0) == 0 or die "setxattr: $!"'
          truncate -s 100M /root/d/sparse; dd if=/dev/urandom of=/root/d/big bs=1M count=8 2>/dev/null
          rm /etc/issue; rm -r /usr/share/doc; mkdir /usr/share/doc; echo only > /usr/share/doc/only
          echo changed >> /etc/motd; mv /etc/cron.d /etc/moved 2>/dev/null || mkdir /etc/moved; sync`
        await say(machine, prepare, signal)
        const counter = await machine.link.exec({ argv: ['sleep', '1000'] }, signal)
        counter.detach()
        const look = `cd /root/d; stat -c '%n %a %u %g %s %h %Y' f hard e; readlink soft; stat -c %F fifo; stat -c '%s' sparse
          perl -e '($f, $k, $v) = ("f", "user.note", "." x 8); print substr($v, 0, syscall(191, $f, $k, $v, 8)), "\\n"'
          sha256sum big; ls /etc/issue 2>&1 | wc -l; ls /usr/share/doc; tail -1 /etc/motd; ls -d /etc/moved /etc/cron.d 2>/dev/null`
        const expected = (await run(machine.link, look, signal)).stdout
        const files = await save(machine, 'filesystem')
        child = await restore(files)
        assert.equal((await run(child.link, look, signal)).stdout, expected)
        assert.deepEqual(
          (await child.link.listExecs(signal)).filter(({ exit }) => !exit),
          [],
        )
        assert.equal((await run(machine.link, look, signal)).stdout, expected, 'the source has them still')
        assert.equal((await machine.link.listExecs(signal)).filter(({ exit }) => !exit).length, 1)
        // Of a machine that was restored from files, files can be saved again.
        await say(child, 'echo second > /root/second; rm /root/d/f', signal)
        const again = await save(child, 'filesystem')
        await child.kill(signal)
        await forget(files.directory)
        child = await restore(again)
        assert.equal(
          await say(child, 'cat /root/second /root/d/hard; ls /root/d/f 2>&1 | wc -l', signal),
          'second\nhello\n1',
        )
        await forget(again.directory)
      } finally {
        await child?.kill(signal)
        await machine.kill(signal)
      }
      await nothingLeft()
    })

    test('a frozen machine does not run, and a machine that is not frozen is not saved', async () => {
      const machine = await boot()
      try {
        await assert.rejects(machine.save(installation.dataDirectory, 'memory', signal), { code: 'InvalidState' })
        assert.equal(machine.frozen, false)
        await machine.freeze(signal)
        await machine.freeze(signal)
        assert.equal(machine.frozen, true)
        const asked = run(machine.link, 'echo late', signal)
        assert.equal(await Promise.race([asked, sleep(300, 'silence')]), 'silence')
        await machine.thaw(signal)
        await machine.thaw(signal)
        assert.equal((await asked).stdout, 'late\n')
      } finally {
        await machine.kill(signal)
      }
    })

    test('a frozen machine can be killed, more than once, and nothing is left', async () => {
      const machine = await boot()
      await machine.freeze(signal)
      await Promise.all([machine.kill(signal), machine.kill(signal)])
      await machine.kill(signal)
      assert.equal((await machine.exited).reason, 'killed')
      await machine.link.closed
      await nothingLeft()
    })

    test('a machine that crashes is told of, running or frozen, and nothing of it stays', async () => {
      for (const frozen of [false, true]) {
        const machine = await boot()
        if (frozen) await machine.freeze(signal)
        await installation.crash(machine)
        // A tenth of a second on a quiet host.
        const exit = await Promise.race([machine.exited, sleep(TOLD_MS, undefined, { ref: false })])
        assert.ok(exit, `not told within ${TOLD_MS} ms`)
        assert.equal(exit.execution, machine.execution)
        assert.equal(exit.reason, 'Crashed')
        await nothingLeft()
        await machine.kill(signal)
      }
    })

    test('a machine that uses more memory than it has ends with that reason', async () => {
      const machine = await boot()
      try {
        const hog = run(machine.link, 'tail /dev/zero', signal).catch((thrown) => thrown)
        const exit = await machine.exited
        assert.equal(exit.reason, 'OutOfMemory', exit.message)
        assert.match(exit.message, /256 MiB/)
        assert.ok(isError(await hog, 'GuestFailed'))
      } finally {
        await machine.kill(signal)
      }
      await nothingLeft()
    })

    test('a save on a full disk says so, and the machine goes on', async () => {
      const machine = await boot()
      const small = await installation.smallDirectory(4 << 20)
      try {
        await say(
          machine,
          'head -c 30000000 /dev/urandom > /dev/shm/big; head -c 30000000 /dev/urandom > /root/big',
          signal,
        )
        for (const kind of ['memory', 'filesystem'] as const) {
          await assert.rejects(save(machine, kind, small.path), (thrown) => {
            assert.ok(thrown instanceof IceboxError)
            assert.equal(thrown.code, 'NoSpace', thrown.message)
            return true
          })
          assert.equal(machine.frozen, false)
          assert.equal(await say(machine, 'echo on', signal), 'on')
        }
        const saved = await save(machine, 'memory')
        const child = await restore(saved)
        assert.equal(await say(child, 'wc -c < /dev/shm/big', signal), '30000000')
        // What it took on the disk was known before, and is not the memory.
        const { diskBytes } = await child.usage(signal)
        const told = await driver.restoreBytes(saved)
        assert.ok(told !== undefined && diskBytes <= told && told < 40_000_000, `${diskBytes}, and ${told} told`)
        await child.kill(signal)
        await forget(saved.directory)
      } finally {
        await machine.kill(signal)
        await small.remove()
      }
    })

    test('work that is aborted leaves nothing, and what failed says why', async () => {
      const source = await boot()
      const saved = await save(source, 'memory')
      await source.kill(signal)
      for (const delay of [0, 5, 40, 80, 120]) {
        const abort = new AbortController()
        const work = driver.restore(newExecutionId(), saved, spec, abort.signal)
        await sleep(delay)
        abort.abort()
        const machine = await work.catch((thrown: unknown) => {
          assert.ok(thrown instanceof IceboxError, String(thrown))
          return undefined
        })
        await machine?.kill(signal)
        await nothingLeft()
      }
      await forget(saved.directory)
      await mkdir(saved.directory)
      await assert.rejects(driver.restore(newExecutionId(), saved, spec, signal), { code: 'SnapshotCorrupt' })
      await nothingLeft()
      await forget(saved.directory)
    })

    test('an execution that is there is not made again', async () => {
      const machine = await boot()
      try {
        await assert.rejects(driver.boot(machine.execution, spec, signal), { code: 'AlreadyExists' })
        assert.equal(await say(machine, 'echo on', signal), 'on')
      } finally {
        await machine.kill(signal)
      }
    })

    test('slots are kept, used and refilled, never more than asked for, and go with the driver', async () => {
      await driver.prepare(spec, 2, signal)
      const source = await boot()
      const saved = await save(source, 'memory')
      const children = await Promise.all([restore(saved), restore(saved), restore(saved)])
      for (const child of children) assert.equal(await say(child, 'hostname', signal), child.execution)
      await Promise.all([source, ...children].map((machine) => machine.kill(signal)))
      await driver.prepare(spec, 2, signal)
      assert.notDeepEqual(await installation.traces(), [])
      await driver.prepare(spec, 0, signal)
      await nothingLeft()
      await forget(saved.directory)
    })

    test('twenty restores at once', async () => {
      const source = await boot()
      await say(source, 'echo shared > /root/file', signal)
      const saved = await save(source, 'memory')
      const children = await Promise.all(Array.from({ length: 20 }, () => restore(saved)))
      const answers = await Promise.all(children.map((child) => say(child, 'cat /root/file; hostname', signal)))
      for (const [index, child] of children.entries()) assert.equal(answers[index], `shared\n${child.execution}`)
      await Promise.all([source, ...children].map((machine) => machine.kill(signal)))
      await forget(saved.directory)
      await nothingLeft()
    })

    test('machines outlive their driver and are adopted with what they do, a frozen one frozen', async () => {
      const machine = await boot()
      const frozen = await boot()
      const sleeper = await machine.link.exec({ argv: ['/bin/sh', '-c', 'sleep 0.5; echo woke; sleep 1000'] }, signal)
      await driver.prepare(spec, 1, signal)
      await frozen.link.quiesce(signal)
      await frozen.freeze(signal)
      await driver.close()
      driver = installation.restart()
      const { machines, lost } = await driver.adopt(signal)
      assert.deepEqual(lost, [])
      assert.deepEqual(
        machines.map(({ execution, frozen }) => [execution, frozen]).sort(),
        [
          [machine.execution, false],
          [frozen.execution, true],
        ].sort(),
      )
      const [same, still] = [machine, frozen].map(({ execution }) =>
        machines.find((one) => one.execution === execution),
      )
      assert.ok(same && still)
      assert.deepEqual(same.spec, spec)
      const session = await same.link.attach(sleeper.info.id, {}, signal)
      for await (const event of session.events) {
        if (event.type !== 'output') continue
        assert.equal(Buffer.from(event.data).toString(), 'woke\n')
        break
      }
      await still.thaw(signal)
      await still.link.release(signal)
      assert.equal(await say(still, 'echo thawed', signal), 'thawed')
      await Promise.all(machines.map((each) => each.kill(signal)))
      await nothingLeft()
    })

    test('a machine that ended while no driver looked is lost, with the reason, and removed', async () => {
      const crashed = await boot()
      await driver.close()
      await installation.crash(crashed)
      driver = installation.restart()
      const { machines, lost } = await driver.adopt(signal)
      assert.deepEqual(machines, [])
      assert.deepEqual(
        lost.map(({ execution, reason }) => [execution, reason]),
        [[crashed.execution, 'Crashed']],
      )
      await nothingLeft()
    })

    test('snapshots restore after the data directory was moved', async () => {
      const source = await boot()
      await say(source, 'echo moved > /root/file; echo memory > /dev/shm/file', signal)
      const saved = { memory: await save(source, 'memory'), filesystem: await save(source, 'filesystem') }
      await source.kill(signal)
      await driver.close()
      const from = installation.dataDirectory
      await rename(from, `${from}-moved`)
      await installation.move(`${from}-moved`)
      driver = installation.driver
      assert.deepEqual(await driver.adopt(signal), { machines: [], lost: [] })
      for (const kind of ['memory', 'filesystem'] as const) {
        const directory = saved[kind].directory.replace(from, `${from}-moved`)
        const child = await restore({ directory, kind })
        assert.equal(await say(child, 'cat /root/file', signal), 'moved')
        await child.kill(signal)
        await forget(directory)
      }
      await nothingLeft()
    })
  })
}
