import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { GuestLink } from './link.ts'
import { bytesOf, collect, HELLO, ran, TestGuest } from './testing.ts'

const signal = AbortSignal.timeout(120_000)
const PENDING = Symbol('pending')
const settled = <T>(promise: Promise<T>) => Promise.race([promise, sleep(100, PENDING)])

describe('quiesce, release and hello', { timeout: 120_000 }, () => {
  let guest: TestGuest
  let link: GuestLink
  before(async () => {
    const started = await TestGuest.running(signal)
    guest = started.guest
    link = started.link
  })
  after(() => guest?.stop())
  const out = async (command: string) => (await ran(link, command, signal)).stdout

  test('hello makes the identity true, also a second time and when the disk is full', async () => {
    assert.equal(
      await out('hostname; cat /etc/hostname /etc/machine-id; getent hosts guesttest; date +%Y >/dev/null'),
      'guesttest\nguesttest\n0123456789abcdef0123456789abcdef\n127.0.1.1       guesttest\n',
    )
    assert.equal(await out('cat /etc/hosts'), '127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.1.1\tguesttest # icebox\n')
    await out('echo "10.1.2.3 db" >> /etc/hosts; head -c 100M /dev/zero > /filler 2>/dev/null')
    const machineId = 'fedcba9876543210fedcba9876543210'
    await link.hello(
      { ...HELLO, hostname: 'other', machineId, env: { B: '2' }, defaults: { user: 'tester', workingDir: '/usr' } },
      signal,
    )
    assert.equal(
      await out('hostname; cat /etc/machine-id; id -un; pwd; echo $B$FROM_HELLO'),
      `other\n${machineId}\ntester\n/usr\n2\n`,
    )
    await ran(link, { argv: ['rm', '/filler'], user: 'root' }, signal)
    await link.hello(HELLO, signal)
    assert.equal(
      await out('cat /etc/hosts'),
      '127.0.0.1\tlocalhost\n::1\tlocalhost\n10.1.2.3 db\n127.0.1.1\tguesttest # icebox\n',
    )
  })

  test('while quiet, requests wait, in order, and go on after release', async () => {
    await link.quiesce(signal)
    await link.quiesce(signal)
    const exec = out('echo late')
    const write = link.writeFile('/tmp/late', bytesOf('content'), {}, signal)
    const list = link.listExecs(signal)
    assert.deepEqual(await Promise.all([settled(exec), settled(write), settled(list)]), [PENDING, PENDING, PENDING])
    await link.release(signal)
    assert.equal(await exec, 'late\n')
    assert.equal((await write).size, 7)
    await list
    await link.release(signal)
  })

  test('what was under way goes on afterwards: output, files, connections', async () => {
    const session = await link.exec({ argv: ['sh', '-c', 'while read x; do echo got $x; done'], stdin: true }, signal)
    const step = Promise.withResolvers<void>()
    const write = link.writeFile(
      '/tmp/underway',
      (async function* () {
        yield Buffer.from('first ')
        await step.promise
        yield Buffer.from('second')
      })(),
      {},
      signal,
    )
    await session.writeStdin(Buffer.from('one\n'))
    await link.quiesce(signal)
    step.resolve()
    await session.writeStdin(Buffer.from('two\n'))
    assert.equal(await settled(write), PENDING)
    await link.release(signal)
    assert.equal((await write).size, 12)
    await session.closeStdin()
    assert.equal((await collect(session.events)).stdout, 'got one\ngot two\n')
  })

  test('the time that was spent quiet does not count against a time limit', async () => {
    const session = await link.exec({ argv: ['sh', '-c', 'read x; echo $x'], stdin: true, timeoutMs: 1500 }, signal)
    await link.quiesce(signal)
    await sleep(2000)
    await link.release(signal)
    await session.writeStdin(Buffer.from('in time\n'))
    assert.deepEqual(await collect(session.events), {
      stdout: 'in time\n',
      stderr: '',
      gaps: [],
      exit: { exitCode: 0, timedOut: false },
    })
  })

  test('a server that dies in between leaves it quiet; its successor says how it goes on', async () => {
    const session = await link.exec({ argv: ['sh', '-c', 'read x; echo $x'], stdin: true, tag: 'kept' }, signal)
    const lost = link
      .writeFile(
        '/tmp/lost',
        (async function* () {
          yield Buffer.from('part')
          await sleep(1000_000, undefined, { ref: false })
        })(),
        {},
        signal,
      )
      .catch(() => {})
    await link.quiesce(signal)
    const dropped = ran(link, 'touch /tmp/dropped', signal).catch(() => {})
    link.detach()
    await Promise.all([dropped])
    link = await guest.attach(signal)
    const waiting = out('ls -A /tmp')
    assert.equal(await settled(waiting), PENDING)
    await link.hello({ ...HELLO, hostname: 'copy' }, signal)
    // What the last server had asked for is not done here; a file half written is gone.
    assert.equal(await waiting, 'late\nunderway\n')
    assert.equal(await out('hostname'), 'copy\n')
    const again = await link.attach(session.info.id, {}, signal)
    await again.writeStdin(Buffer.from('still here\n'))
    assert.equal((await collect(again.events)).stdout, 'still here\n')
    void lost
  })

  test('before hello nothing is done', async () => {
    const fresh = await TestGuest.start(signal)
    try {
      const early = await fresh.attach(signal)
      const waiting = ran(early, 'echo $FROM_HELLO', signal)
      assert.equal(await settled(waiting), PENDING)
      await early.hello(HELLO, signal)
      assert.equal((await waiting).stdout, 'yes\n')
    } finally {
      await fresh.stop()
    }
  })

  test('metrics say what the guest has and uses', async () => {
    const before = await link.metrics(signal)
    await out('i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; head -c 5000000 /dev/zero > /used')
    const sleeper = await link.exec({ argv: ['sleep', '1000'] }, signal)
    const now = await link.metrics(signal)
    assert.ok(now.cpuCount >= 1 && now.memoryTotalBytes > now.memoryUsedBytes && now.memoryUsedBytes > 0)
    assert.ok(now.cpuSeconds > before.cpuSeconds)
    assert.equal(now.diskTotalBytes, 64 * 1_048_576)
    assert.ok(now.diskUsedBytes - before.diskUsedBytes >= 5_000_000)
    assert.equal(now.processes, before.processes + 1)
    await sleeper.kill('SIGKILL', signal)
  })
})
