import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, readlink, rm, stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { networkInterfaces, tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { type MachineSpec, newExecutionId } from '@icebox/model'
import { CgroupTree } from '../../cgroup/cgroup.ts'
import { SANDBOX_SCORE } from '../../oom.ts'
import { hello, run, SIZE, say } from '../conformance.ts'
import type { Machine } from '../driver.ts'
import { GUEST_TASKS, PIDS } from './limits.ts'
import { findProcesses } from './process.ts'
import { GvisorInstallation, testImage } from './testing.ts'

const DEADLINE_MS = 300_000
const NAMESPACES = ['ipc', 'mnt', 'net', 'pid', 'user', 'uts']
/** chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw sys_chroot mknod audit_write setfcap */
const DOCKER_CAPABILITIES = [0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31].reduce(
  (set, bit) => set | (1n << BigInt(bit)),
  0n,
)

const field = (status: string, name: string) => new RegExp(`^${name}:\\s*(.*)$`, 'm').exec(status)?.[1] ?? ''

describe('isolation: what a hostile sandbox can reach', { timeout: DEADLINE_MS }, () => {
  let installation: GvisorInstallation
  let spec: MachineSpec
  let image: string
  let hostile: Machine
  let neighbour: Machine
  const signal = AbortSignal.timeout(DEADLINE_MS)

  before(async () => {
    const { digest } = await testImage(signal)
    spec = { imageDigest: digest, size: SIZE }
    installation = await GvisorInstallation.make(signal)
    image = installation.image
    await installation.driver.adopt(signal)
    neighbour = await boot()
    // The one that is tried came from a slot and a snapshot, as most do.
    const directory = await mkdtemp(join(installation.dataDirectory, 'saved-'))
    await neighbour.link.quiesce(signal)
    await neighbour.freeze(signal)
    await neighbour.save(directory, 'memory', signal)
    await neighbour.thaw(signal)
    await neighbour.link.release(signal)
    await installation.driver.prepare(spec, 1, signal)
    const saved = { directory, kind: 'memory' } as const
    hostile = await installation.driver.restore(newExecutionId(), saved, spec, signal)
    await hostile.link.hello(hello(hostile.execution), signal)
    await installation.driver.prepare(spec, 0, signal)
  })
  after(() => installation?.remove())

  test('for want of memory it is killed before the server is', async () => {
    const { container } = await installation.record(hostile)
    const sandboxes = await findProcesses(`--root=${join(installation.runDirectory, 'runsc', container)}`)
    assert.ok(sandboxes.length >= 2, 'the sentry and its gofer')
    for (const { identity } of sandboxes)
      assert.equal((await readFile(`/proc/${identity.pid}/oom_score_adj`, 'utf8')).trim(), String(SANDBOX_SCORE))
  })

  const boot = async () => {
    const machine = await installation.driver.boot(newExecutionId(), spec, signal)
    await machine.link.hello(hello(machine.execution), signal)
    return machine
  }
  const refused = async (command: string) => {
    const ran = await run(hostile.link, command, signal)
    assert.notEqual(ran.code, 0, `${command} was not refused: ${ran.stdout}`)
    return ran.stdout + ran.stderr
  }
  /** The host's processes of a machine by what they are: sandbox, gofer. */
  const hostProcesses = async (machine: Machine) => {
    const { container } = await installation.record(machine)
    const found = await findProcesses(`--root=${join(installation.runDirectory, 'runsc', container)}`)
    return Object.fromEntries(found.map(({ identity, arguments: [name = ''] }) => [name, identity.pid]))
  }
  const cgroupOf = async (machine: Machine) => {
    const tree = await CgroupTree.open(join('/icebox', basename(installation.runDirectory)))
    return tree.find((await installation.record(machine)).container)
  }

  test('it sees its own processes and no others', async () => {
    const names = (await say(hostile, 'cat /proc/[0-9]*/comm', signal)).split('\n')
    assert.ok(names.length < 12, names.join(' '))
    assert.ok(!names.includes('node') && !names.some((name) => name.startsWith('runsc')))
    await refused(`kill -0 ${process.pid}`)
  })

  test('it sees no file of the host, and no path of the host is told to it', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'icebox-secret-'))
    try {
      await writeFile(join(directory, 'file'), 'secret', { mode: 0o666 })
      await refused(`cat ${join(directory, 'file')}`)
      await refused(`ls ${installation.dataDirectory}`)
      const told = await say(
        hostile,
        'cat /proc/mounts /proc/self/mountinfo /proc/cmdline; tr "\\0" "\\n" < /proc/self/environ',
        signal,
      )
      for (const path of [installation.dataDirectory, installation.runDirectory, image])
        assert.ok(!told.includes(path), told)
    } finally {
      await rm(directory, { recursive: true })
    }
  })

  test('it cannot change the agent’s directory', async () => {
    assert.equal(await say(hostile, 'ls -A /.icebox', signal), 'guest')
    for (const command of [
      'touch /.icebox/x',
      'echo x >> /.icebox/guest',
      'rm -f /.icebox/guest',
      'mv /.icebox/guest /.icebox/other',
      'chmod 777 /.icebox/guest',
      'mount -o remount,rw /.icebox',
    ])
      await refused(command)
    assert.equal(await say(neighbour, 'ls -A /.icebox', signal), 'guest')
  })

  test('it reaches neither the host’s loopback, nor another sandbox’s, nor any address', async () => {
    const connect = (host: string, port: number) => `timeout 5 bash -c ': < /dev/tcp/${host}/${port}'`
    const server = createServer((socket) => socket.end()).listen(0, '0.0.0.0')
    await once(server, 'listening')
    const address = server.address()
    assert.ok(address && typeof address === 'object')
    try {
      const own = Object.values(networkInterfaces()).flatMap(
        (list) => list?.filter(({ family }) => family === 'IPv4') ?? [],
      )
      for (const { address: host } of own) await refused(connect(host, address.port))
      await refused(connect('169.254.169.254', 80))
      const listen = `$| = 1; $s = IO::Socket::INET->new(Listen => 9, LocalAddr => "127.0.0.1", LocalPort => 4711) or die "$@";
        print "up\\n"; while ($c = $s->accept) { close $c }`
      const session = await neighbour.link.exec({ argv: ['perl', '-MIO::Socket::INET', '-e', listen] }, signal)
      for await (const event of session.events) {
        assert.equal(event.type === 'output' ? Buffer.from(event.data).toString() : event.type, 'up\n')
        break
      }
      await say(neighbour, connect('127.0.0.1', 4711), signal)
      await refused(connect('127.0.0.1', 4711))
      await session.kill('SIGKILL', signal)
      const names = (await say(hostile, 'cat /proc/net/dev', signal)).split('\n').slice(2)
      assert.deepEqual(
        names.map((line) => line.split(':')[0]?.trim()),
        ['lo'],
      )
    } finally {
      server.close()
    }
  })

  test('its root has no more capabilities than Docker gives, other users have none', async () => {
    const sets = async (user: string) => {
      const { stdout } = await run(hostile.link, { argv: ['cat', '/proc/self/status'], user }, signal)
      return Object.fromEntries(
        ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'].map((name) => [name, BigInt(`0x${field(stdout, name)}`)]),
      )
    }
    for (const [name, set] of Object.entries(await sets('root')))
      assert.equal(set & ~DOCKER_CAPABILITIES, 0n, `${name} ${set.toString(16)}`)
    const { CapBnd, ...own } = await sets('nobody')
    assert.equal((CapBnd ?? -1n) & ~DOCKER_CAPABILITIES, 0n)
    assert.deepEqual(new Set(Object.values(own)), new Set([0n]))
    for (const command of [
      'mount -t tmpfs none /mnt',
      'mount --bind / /mnt',
      'umount /tmp',
      'date -s 2001-01-01',
      'echo 1 > /proc/sys/kernel/panic',
      'cat /proc/1/environ',
      'head -c 1 /proc/1/mem',
      'ulimit -u unlimited',
      'nice -n -5 true 2>&1 | grep -q . && false',
    ])
      await refused(command)
  })

  test('set-user-ID programs work, as sudo needs', async () => {
    await say(hostile, 'cp /usr/bin/id /usr/local/bin/who; chmod 4755 /usr/local/bin/who', signal)
    const { stdout } = await run(hostile.link, { argv: ['/usr/local/bin/who'], user: 'nobody' }, signal)
    assert.match(stdout, /uid=65534.*euid=0/)
  })

  test('device nodes that it makes lead nowhere', async () => {
    const disks = (await readFile('/proc/partitions', 'utf8')).matchAll(/^\s*(\d+)\s+(\d+)\s+\d+\s+\S+$/gm)
    const devices = [...disks].map(([, major, minor]) => `b ${major} ${minor}`).slice(0, 3)
    for (const device of [...devices, 'c 1 1', 'c 1 2', 'c 10 232']) {
      await run(hostile.link, `rm -f /root/node; mknod /root/node ${device}`, signal)
      await refused('head -c 1 /root/node')
    }
  })

  test('it cannot use more disk than it has, and goes on when that is full', async () => {
    const wrote = await refused('head -c 700000000 /dev/zero > /root/full')
    assert.match(wrote, /No space left/)
    assert.ok((await hostile.usage(signal)).diskBytes <= (SIZE.diskMiB + 8) << 20)
    assert.equal(await say(hostile, 'rm /root/full; echo on > /root/after; cat /root/after', signal), 'on')
    assert.match(await refused('head -c 200000000 /dev/zero > /dev/shm/full'), /No space left/)
    await say(hostile, 'rm /dev/shm/full', signal)
  })

  test('it cannot have more processes than it may, and goes on when it tried', async () => {
    const limits = await say(hostile, 'cat /proc/self/limits', signal)
    assert.match(limits, new RegExp(`^Max processes\\s+${GUEST_TASKS}\\s+${GUEST_TASKS}\\s`, 'm'))
    await refused(`bash -c 'ulimit -u ${GUEST_TASKS + 1}'`)
    // The same limit, lowered so that it is met with little memory. (bash would try each fork again and again.)
    const bomb = `bash -c "ulimit -u 40; exec sh -c 'for i in \\$(seq 100); do sleep 1000 & done'"`
    const ran = await run(hostile.link, { argv: ['/bin/sh', '-c', bomb], user: 'daemon' }, signal)
    assert.match(ran.stderr, /Cannot fork/)
    await say(
      hostile,
      'for p in /proc/[0-9]*; do [ "$(stat -c %U $p)" = daemon ] && kill -9 $(basename $p); done; true',
      signal,
    )
    assert.equal(await say(hostile, 'echo on', signal), 'on')
  })

  test('a sandbox that multiplies without end harms neither the host nor its neighbour', async () => {
    const bomber = await boot()
    const cgroup = await cgroupOf(bomber)
    const bombing = run(bomber.link, 'bomb() { bomb | bomb & }; bomb; sleep 1000', signal).catch(() => {})
    const limit = AbortSignal.timeout(15_000)
    let ended = false
    void bomber.exited.then(() => {
      ended = true
    })
    let most = 0
    while (!ended && !limit.aborted) {
      most = Math.max(most, (await cgroup.processes()).length)
      assert.equal(await say(neighbour, 'echo on', signal), 'on')
    }
    assert.ok(most <= PIDS, `${most} processes`)
    await bomber.kill(signal)
    await bombing
    assert.deepEqual(await cgroup.processes(), [])
  })

  test('the process that is its kernel has no rights on the host', async () => {
    for (const machine of [hostile, neighbour]) {
      const { 'runsc-sandbox': sandbox, 'runsc-gofer': gofer } = await hostProcesses(machine)
      assert.ok(sandbox && gofer)
      const status = await readFile(`/proc/${sandbox}/status`, 'utf8')
      assert.equal(field(status, 'Uid'), '65534\t65534\t65534\t65534')
      assert.equal(field(status, 'Gid'), '65534\t65534\t65534\t65534')
      assert.equal(BigInt(`0x${field(status, 'CapEff')}`) | BigInt(`0x${field(status, 'CapBnd')}`), 0n)
      assert.match(await readFile(`/proc/${sandbox}/uid_map`, 'utf8'), /^\s*65534\s+65534\s+1\s*$/)
      const cgroup = await cgroupOf(machine)
      const members = await cgroup.processes()
      assert.ok(members.includes(sandbox) && members.includes(gofer))
      for (const pid of members) {
        // The stubs, in which the guest's programs run, come and go.
        const text = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '')
        if (!/^State:\s*[^ZX]/m.test(text)) continue
        assert.equal(field(text, 'Seccomp'), '2', text)
        assert.equal(field(text, 'NoNewPrivs'), '1', text)
        if (pid !== gofer) assert.equal(field(text, 'Uid'), '65534\t65534\t65534\t65534', text)
        if (pid !== gofer) assert.equal(BigInt(`0x${field(text, 'CapEff')}`), 0n, text)
        assert.match(await readFile(`/proc/${pid}/cgroup`, 'utf8'), new RegExp(`${cgroup.path}$`, 'm'))
      }
    }
  })

  test('it shares no namespace with the host or with another sandbox', async () => {
    const pids = await Promise.all(
      [hostile, neighbour].map(async (each) => (await hostProcesses(each))['runsc-sandbox']),
    )
    for (const namespace of NAMESPACES) {
      const found = await Promise.all(['self', ...pids].map((pid) => readlink(`/proc/${pid}/ns/${namespace}`)))
      assert.equal(new Set(found).size, 3, `${namespace}: ${found.join(' ')}`)
    }
  })

  test('its kernel sees an empty root, and has open only what is its own', async () => {
    const { container } = await installation.record(hostile)
    const { 'runsc-sandbox': sandbox, 'runsc-gofer': gofer } = await hostProcesses(hostile)
    const seen = await readdir(`/proc/${sandbox}/root/`)
    assert.deepEqual(
      seen.filter((name) => !['proc', 'etc', 'sys', 'tmp', 'dev', 'root', 'runsc', 'exe'].includes(name)),
      [],
      seen.join(' '),
    )
    const run = installation.runDirectory
    const bundle = join(installation.dataDirectory, 'bundles', container)
    const allowed = [
      /^(?:socket|pipe|anon_inode|mnt|net):/,
      /^\/memfd:/,
      /^\/dev\/null$/,
      /^\/(?:proc|sys)(?:\/|$)/,
      new RegExp(`^${join(run, 'machines', hostile.execution)}/(?:in|out|log)$`),
      new RegExp(`^${join(run, 'slots')}/\\w+/(?:in|out|log)$`),
      new RegExp(`^${join(run, 'runsc', container)}/`),
      new RegExp(`^${join(bundle, 'rootfs')}/\\.gvisor\\.filestore\\.`),
    ]
    for (const fd of await readdir(`/proc/${sandbox}/fd`)) {
      const target = await readlink(`/proc/${sandbox}/fd/${fd}`)
      const flags = Number.parseInt(field(await readFile(`/proc/${sandbox}/fdinfo/${fd}`, 'utf8'), 'flags'), 8)
      // The agent's file as the gofer sees it.
      if (target === image || target === '/root/.icebox/guest')
        assert.equal(flags & 0o3, 0, `${target} is open for writing`)
      else assert.ok(allowed.some((pattern) => pattern.test(target)) || target === '/', `open: ${target}`)
    }
    const gofers = await readFile(`/proc/${gofer}/mountinfo`, 'utf8')
    const agents = gofers.split('\n').filter((line) => line.includes(join('bundles', container, 'agent')))
    assert.ok(agents.length > 0, gofers)
    for (const line of agents) assert.match(line.split(' ')[5] ?? '', /^ro\b/)
  })

  test('what it can never write, it does not share: image and agent are as they were', async () => {
    const before = await stat(image)
    await run(hostile.link, 'echo x > /etc/hostname; rm -rf /usr/share; echo x > /bin/true', signal)
    assert.equal((await stat(image)).mtimeMs, before.mtimeMs)
    assert.equal((await say(neighbour, 'ls /usr/share | wc -l', signal)) === '0', false)
    await say(neighbour, '/bin/true', signal)
  })
})
