import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import type { GuestLink } from './link.ts'
import { collect, ran, TestGuest } from './testing.ts'

const signal = AbortSignal.timeout(120_000)

describe('exec in a guest', { timeout: 120_000 }, () => {
  let guest: TestGuest
  let link: GuestLink
  before(async () => {
    const started = await TestGuest.running(signal)
    guest = started.guest
    link = started.link
  })
  after(() => guest?.stop())

  test('output, exit codes and signals come back, with the environment and directory asked for', async () => {
    const both = await ran(link, 'echo out; echo err >&2; exit 3', signal)
    assert.deepEqual([both.stdout, both.stderr, both.exit], ['out\n', 'err\n', { exitCode: 3, timedOut: false }])
    const killed = await ran(link, 'kill -TERM $$', signal)
    assert.deepEqual(killed.exit, { signal: 'SIGTERM', timedOut: false })
    const env = await ran(link, { argv: ['env'], env: { MINE: 'a b=c', HOME: '/elsewhere' } }, signal)
    const lines = env.stdout.split('\n')
    for (const line of [
      'MINE=a b=c',
      'HOME=/elsewhere',
      'FROM_HELLO=yes',
      'USER=root',
      'LOGNAME=root',
      'SHELL=/bin/bash',
    ])
      assert.ok(lines.includes(line), `${line} in ${env.stdout}`)
    assert.equal((await ran(link, { argv: ['pwd'] }, signal)).stdout, '/root\n')
    assert.equal((await ran(link, { argv: ['pwd'], cwd: '/usr/share' }, signal)).stdout, '/usr/share\n')
    const odd = await ran(link, { argv: ['printf', '%s|', '', 'a\nb', '$HOME'] }, signal)
    assert.equal(odd.stdout, '|a\nb|$HOME|')
  })

  test('what cannot run is refused in words', async () => {
    await assert.rejects(ran(link, { argv: ['no-such-program'] }, signal), {
      code: 'NotFound',
      message: /no-such-program/,
    })
    await assert.rejects(ran(link, { argv: ['/etc/passwd'] }, signal), { code: 'InvalidArgument', message: /denied/ })
    await assert.rejects(ran(link, { argv: ['pwd'], cwd: '/nowhere' }, signal), {
      code: 'NotFound',
      message: /nowhere/,
    })
    await assert.rejects(ran(link, { argv: ['id'], user: 'stranger' }, signal), {
      code: 'NotFound',
      message: /stranger/,
    })
    await assert.rejects(ran(link, { argv: ['id'], user: 'root:strangers' }, signal), { code: 'NotFound' })
    await assert.rejects(ran(link, { argv: ['a\0b'] }, signal), { code: 'InvalidArgument' })
    await assert.rejects(ran(link, { argv: [] }, signal), { code: 'InvalidArgument' })
    await assert.rejects(ran(link, { argv: ['true', 'x'.repeat(1_048_577)] }, signal), { code: 'TooLarge' })
    await assert.rejects(link.attach('12345', {}, signal), { code: 'NotFound' })
    await assert.rejects(link.attach('no number', {}, signal), { code: 'NotFound' })
  })

  test('a program is looked up in the PATH of its own environment', async () => {
    const script = '#!/bin/sh\necho mine'
    await link.writeFile(
      '/tmp/path/prog',
      (async function* () {
        yield Buffer.from(script)
      })(),
      { mode: 0o755 },
      signal,
    )
    const found = await ran(link, { argv: ['prog'], env: { PATH: '/nowhere:/tmp/path:/usr/bin:/bin' } }, signal)
    assert.equal(found.stdout, 'mine\n')
    await assert.rejects(ran(link, { argv: ['prog'] }, signal), { code: 'NotFound' })
  })

  test('users by name, uid and group, with their groups and home', async () => {
    const id = async (user: string) =>
      (
        await ran(link, { argv: ['sh', '-c', 'id -u; id -g; id -G; echo $HOME $USER; pwd'], user }, signal)
      ).stdout.split('\n')
    assert.deepEqual(await id('tester'), ['1234', '4321', '4321 5555', '/home/tester tester', '/home/tester', ''])
    assert.deepEqual(await id('1234'), ['1234', '4321', '4321 5555', '/home/tester tester', '/home/tester', ''])
    assert.deepEqual(await id('tester:helpers'), ['1234', '5555', '5555', '/home/tester tester', '/home/tester', ''])
    assert.deepEqual(await id('777:888'), ['777', '888', '888', '/ 777', '/', ''])
    // Who was added since is known at once.
    await ran(
      link,
      'echo "added:x:4444:5555::/tmp:/bin/sh" >> /etc/passwd; sed -i "s/^helpers:.*/&,added/" /etc/group',
      signal,
    )
    assert.deepEqual(await id('added'), ['4444', '5555', '5555', '/tmp added', '/tmp', ''])
    // Its home does not exist: the directory falls back, and the process starts.
    assert.deepEqual(await id('nobody'), ['65534', '65534', '65534 5555', '/nonexistent nobody', '/', ''])
  })

  test('processes have what Docker leaves them, the agent keeps the rest', async () => {
    const caps = async (pid: string, user: string) => {
      const { stdout } = await ran(link, { argv: ['cat', `/proc/${pid}/status`], user }, signal)
      return Object.fromEntries(
        [...stdout.matchAll(/^(Cap\w+|NoNewPrivs|Sig\w+):\s+(\w+)$/gm)].map((m) => [m[1], m[2]]),
      )
    }
    const docker = '00000000a80425fb'
    const none = '0000000000000000'
    const signals = { SigBlk: none, SigIgn: none, SigPnd: none, SigCgt: none }
    const expected = { CapInh: none, CapBnd: docker, CapAmb: none, NoNewPrivs: '0', ...signals }
    assert.deepEqual(await caps('self', 'root'), { ...expected, CapPrm: docker, CapEff: docker })
    assert.deepEqual(await caps('self', 'tester'), { ...expected, CapPrm: none, CapEff: none })
    const agent = await caps('1', 'root')
    assert.ok(BigInt(`0x${agent.CapEff}`) & (1n << 21n), 'the agent has CAP_SYS_ADMIN')
    const open = await ran(link, 'ls /proc/self/fd | tr "\\n" " "; umask', signal)
    assert.equal(open.stdout, '0 1 2 3 0022\n')
  })

  test('stdin: at once at its end, written and closed, retried by offset without loss or doubling', async () => {
    assert.equal((await ran(link, { argv: ['cat'] }, signal)).stdout, '')
    const session = await link.exec({ argv: ['cat'], stdin: true }, signal)
    await session.writeStdin(Buffer.from('hello '))
    await session.writeStdin(Buffer.from('hello world'), { offset: 0 })
    await assert.rejects(session.writeStdin(Buffer.from('x'), { offset: 100 }), { code: 'InvalidArgument' })
    const large = Buffer.alloc(1_000_000, 'abcdefg')
    const sum = collect(session.events)
    await session.writeStdin(large)
    await session.closeStdin()
    assert.equal((await sum).stdout, `hello world${large}`)
    await assert.rejects(session.writeStdin(Buffer.from('late')), { code: 'InvalidState' })
    const deaf = await link.exec({ argv: ['sh', '-c', 'exec <&-; sleep 100'], stdin: true }, signal)
    await assert.rejects(deaf.writeStdin(Buffer.alloc(1_000_000)), { code: 'InvalidState' })
    await deaf.kill('SIGKILL', signal)
  })

  test('a second session goes on where the first stopped writing', async () => {
    const first = await link.exec({ argv: ['cat'], stdin: true }, signal)
    await first.writeStdin(Buffer.from('one '))
    first.detach()
    const second = await link.attach(first.info.id, {}, signal)
    assert.equal(second.info.stdinBytes, 4)
    await second.writeStdin(Buffer.from('two'))
    await second.closeStdin()
    assert.equal((await collect(second.events)).stdout, 'one two')
  })

  test('a write whose session is detached meanwhile goes on in another one', async () => {
    const script = 'until [ -e /tmp/read ]; do sleep 0.01; done; wc -c'
    const first = await link.exec({ argv: ['sh', '-c', script], stdin: true }, signal)
    const input = Buffer.alloc(1_000_000, 'x')
    const write = first.writeStdin(input)
    const taken = async () => (await link.listExecs(signal)).find(({ id }) => id === first.info.id)?.stdinBytes ?? 0
    while ((await taken()) === 0);
    first.detach()
    await assert.rejects(write, { code: 'GuestFailed', message: /detached/ })
    await assert.rejects(first.closeStdin(), { code: 'GuestFailed' })
    const second = await link.attach(first.info.id, 'none', signal)
    await ran(link, 'touch /tmp/read', signal)
    await second.writeStdin(input, { offset: 0 })
    await second.closeStdin()
    // Told of the exit, and of nothing that was written.
    assert.deepEqual((await collect(second.events)).stdout, '')
    assert.equal((await collect((await link.attach(first.info.id, {}, signal)).events)).stdout, '1000000\n')
  })

  test('a session without output neither holds a process up nor counts as its reader', async () => {
    const echo = await link.exec({ argv: ['cat'], stdin: true, keepBytes: 4096, overflow: 'block' }, signal)
    const echoed = collect(echo.events)
    const keyboard = await link.attach(echo.info.id, 'none', signal)
    await keyboard.writeStdin(Buffer.alloc(1_000_000, 'x'))
    await keyboard.closeStdin()
    assert.equal((await echoed).stdout.length, 1_000_000)

    const half = 'head -c 4096 /dev/zero'
    const writer = await link.exec(
      {
        argv: ['sh', '-c', `${half}; read line; ${half}; touch /tmp/wrote; sleep 1000`],
        stdin: true,
        keepBytes: 4096,
        overflow: 'block',
      },
      signal,
    )
    writer.holdUntilAcknowledged()
    for await (const event of writer.events)
      if (event.type === 'output' && event.offset + event.data.length === 4096) break
    writer.detach()
    const other = await link.attach(writer.info.id, 'none', signal)
    await other.writeStdin(Buffer.from('go on\n'))
    await ran(link, 'until [ -e /tmp/wrote ]; do sleep 0.01; done', signal)
    await other.kill('SIGKILL', signal)
    const all = await collect((await link.attach(writer.info.id, { stdout: 0 }, signal)).events)
    assert.deepEqual([all.gaps, all.stdout.length, all.exit?.signal], [[], 8192, 'SIGKILL'])
  })

  test('who writes more than the process reads waits, also on one attachment after the other', async () => {
    const process = await link.exec(
      { argv: ['sh', '-c', 'mkfifo /tmp/go; read x </tmp/go; wc -c'], stdin: true },
      signal,
    )
    const piece = Buffer.alloc(65_536, 'x')
    const write = async () => {
      const session = await link.attach(process.info.id, 'none', signal)
      await session.writeStdin(piece)
      session.detach()
    }
    // More than a pipe and the agent take together.
    let answered = false
    const writing = (async () => {
      for (let times = 0; times < 3; times++) await write()
      answered = true
    })()
    await ran(link, 'until [ -p /tmp/go ]; do sleep 0.01; done; sleep 0.2', signal)
    assert.equal(answered, false)
    await ran(link, 'echo go > /tmp/go', signal)
    await writing
    await process.closeStdin()
    assert.equal((await collect(process.events)).stdout.trim(), String(3 * piece.length))
  })

  test('signals reach the process group; a time limit kills it', async () => {
    const session = await link.exec(
      { argv: ['sh', '-c', 'trap "echo caught; exit 5" INT; echo ready; sleep 100 & wait'] },
      signal,
    )
    for await (const event of session.events) {
      if (event.type === 'output' && Buffer.from(event.data).toString() === 'ready\n') break
    }
    await session.kill('SIGINT', signal)
    const rest = await collect(session.events)
    assert.deepEqual([rest.stdout, rest.exit], ['caught\n', { exitCode: 5, timedOut: false }])
    await assert.rejects(session.kill('SIGINT', signal), { code: 'InvalidState' })
    await assert.rejects(session.kill('SIGNONSENSE', signal), { code: 'InvalidArgument' })
    const slow = await ran(link, { argv: ['sh', '-c', 'echo $$; sleep 100 & sleep 100'], timeoutMs: 50 }, signal)
    assert.deepEqual(slow.exit, { signal: 'SIGKILL', timedOut: true })
    // Of its group nothing is left.
    const group = slow.stdout.trim()
    assert.equal((await ran(link, `while pgrep -g ${group}; do sleep 0.01; done`, signal)).exit?.exitCode, 0)
  })

  test('a terminal: controlling, sized, resized, with end of file and Ctrl-C', async () => {
    const session = await link.exec(
      {
        argv: [
          'bash',
          '-c',
          'tty; stty size; trap "stty size; exit 0" WINCH; echo ready; while :; do sleep 0.01; done',
        ],
        pty: { cols: 100, rows: 40 },
      },
      signal,
    )
    let seen = ''
    for await (const event of session.events) {
      if (event.type === 'output') seen += Buffer.from(event.data).toString()
      if (seen.includes('ready\r\n')) break
    }
    assert.match(seen, /^\/dev\/pts\/\d+\r\n40 100\r\nready\r\n$/)
    await session.resize(80, 24)
    const resized = await collect(session.events)
    assert.equal(resized.stdout, '24 80\r\n')
    const cat = await link.exec({ argv: ['cat'], pty: { cols: 80, rows: 24 }, stdin: true }, signal)
    await cat.writeStdin(Buffer.from('line\npart'))
    await cat.closeStdin()
    const echoed = await collect(cat.events)
    assert.match(echoed.stdout, /^line\r\n/)
    assert.match(echoed.stdout, /part$/)
    assert.deepEqual(echoed.exit, { exitCode: 0, timedOut: false })
    assert.equal((await ran(link, { argv: ['cat'], pty: { cols: 80, rows: 24 } }, signal)).exit?.exitCode, 0)
    const interrupted = await link.exec({ argv: ['sleep', '100'], pty: { cols: 80, rows: 24 }, stdin: true }, signal)
    await interrupted.writeStdin(Buffer.from('\x03'))
    assert.deepEqual((await collect(interrupted.events)).exit, { signal: 'SIGINT', timedOut: false })
    await assert.rejects((await link.exec({ argv: ['true'] }, signal)).resize(1, 1), { code: 'InvalidState' })
  })

  test('a reader that keeps reading loses nothing, however much there is', async () => {
    const session = await link.exec({ argv: ['sh', '-c', 'seq 1 2000000'], keepBytes: 4096 }, signal)
    const all = await collect(session.events)
    assert.equal(all.gaps.length, 0)
    assert.equal(all.stdout.length, 14_888_896)
    assert.ok(all.stdout.endsWith('1999999\n2000000\n'))
  })

  test('overflow drop: the process ends without a reader, the last bytes stay and the gap is told', async () => {
    const session = await link.exec({ argv: ['sh', '-c', 'seq 1 100000; echo end'], keepBytes: 4096 }, signal)
    session.detach()
    for (;;) {
      const info = (await link.listExecs(signal)).find(({ id }) => id === session.info.id)
      if (info?.exit && info.stdoutBytes === 588_899) break
    }
    const late = await link.attach(session.info.id, { stdout: 0 }, signal)
    const rest = await collect(late.events)
    assert.deepEqual(rest.gaps, [{ type: 'gap', stream: 'stdout', from: 0, to: 588_899 - 4096 }])
    assert.equal(rest.stdout.length, 4096)
    assert.ok(rest.stdout.endsWith('100000\nend\n'))
    assert.deepEqual(rest.exit, { exitCode: 0, timedOut: false })
    const oldest = await collect((await link.attach(session.info.id, {}, signal)).events)
    assert.deepEqual([oldest.gaps, oldest.stdout], [[], rest.stdout])
    await assert.rejects(link.attach(session.info.id, { stdout: 600_000 }, signal), { code: 'InvalidArgument' })
  })

  test('overflow drop: a reader that stood still is told of one gap, and the others noticed nothing', async () => {
    const writer = { argv: ['sh', '-c', 'yes | head -c 20000000; echo end'], keepBytes: 4096 }
    const still = await link.exec(writer, signal)
    // The process waits for it for a while; who asks meanwhile is answered.
    while (!(await link.listExecs(signal)).find(({ id }) => id === still.info.id)?.exit);
    const { stdout, gaps, exit } = await collect(still.events)
    assert.equal(gaps.length, 1)
    assert.equal(stdout.length + (gaps[0]?.to ?? 0) - (gaps[0]?.from ?? 0), 20_000_004)
    assert.ok(stdout.endsWith('y\nend\n'))
    assert.deepEqual(exit, { exitCode: 0, timedOut: false })
  })

  test('a silent process is told of, also when what is waited for is its output', async () => {
    const session = await link.exec({ argv: ['sleep', '1000'], overflow: 'block' }, signal)
    assert.equal(session.info.exit, undefined)
    await session.kill('SIGTERM', signal)
    assert.deepEqual((await collect(session.events)).exit, { signal: 'SIGTERM', timedOut: false })
  })

  test('what was given out and not acknowledged is still there for the next reader', async () => {
    const request = { argv: ['seq', '1', '5000'], keepBytes: 4096, overflow: 'block' as const }
    const first = await link.exec(request, signal)
    first.holdUntilAcknowledged()
    let taken = 0
    for await (const event of first.events) {
      assert.ok(event.type === 'output')
      taken = event.offset + event.data.length
      if (taken === 4096) break
    }
    first.acknowledge({ stdout: 0, stderr: 1_000_000 })
    first.detach()

    const second = await link.attach(first.info.id, { stdout: 0 }, signal)
    second.holdUntilAcknowledged()
    let text = ''
    for await (const event of second.events) {
      assert.notEqual(event.type, 'gap')
      if (event.type !== 'output') continue
      assert.equal(event.offset, text.length)
      text += Buffer.from(event.data).toString()
      second.acknowledge({ stdout: text.length })
    }
    assert.equal(text, Array.from({ length: 5000 }, (_, index) => `${index + 1}\n`).join(''))
  })

  test('overflow follow: the process waits for its readers, however long, and for nobody when there are none', async () => {
    const session = await link.exec(
      { argv: ['sh', '-c', 'seq 1 200000; touch /tmp/followed'], keepBytes: 4096, overflow: 'follow' },
      signal,
    )
    session.holdUntilAcknowledged()
    const events = session.events[Symbol.asyncIterator]()
    await events.next()
    // Longer than a process with `drop` waits.
    await ran(link, 'sleep 3', signal)
    assert.equal((await ran(link, 'test -e /tmp/followed', signal)).exit?.exitCode, 1)
    session.detach()
    await ran(link, 'until [ -e /tmp/followed ]; do sleep 0.01; done', signal)

    const slow = await link.exec({ argv: ['seq', '1', '200000'], keepBytes: 4096, overflow: 'follow' }, signal)
    const first = await slow.events[Symbol.asyncIterator]().next()
    assert.ok(!first.done && first.value.type === 'output')
    await ran(link, 'sleep 3', signal)
    const rest = await collect(slow.events)
    assert.deepEqual([rest.gaps, first.value.data.length + rest.stdout.length], [[], 1_288_895])
  })

  test('a listing tells what was added to the environment of what runs', async () => {
    const session = await link.exec({ argv: ['sleep', '1000'], env: { A: '1', LONG: 'x'.repeat(5000), B: '' } }, signal)
    const listed = async () => (await link.listExecs(signal)).find(({ id }) => id === session.info.id)
    assert.deepEqual((await listed())?.env, { A: '1', B: '' })
    await session.kill('SIGKILL', signal)
    await collect(session.events)
    assert.equal((await listed())?.env, undefined)
  })

  test('overflow block: the process waits for its reader and nothing is dropped', async () => {
    const session = await link.exec(
      { argv: ['sh', '-c', 'seq 1 100000; echo end >&2'], keepBytes: 4096, overflow: 'block' },
      signal,
    )
    session.detach()
    const stuck = async () => (await link.listExecs(signal)).find(({ id }) => id === session.info.id)
    for (let info = await stuck(); info?.stdoutBytes !== 4096; info = await stuck());
    const later = await link.attach(session.info.id, {}, signal)
    const all = await collect(later.events)
    assert.deepEqual([all.gaps, all.stdout.length, all.stderr], [[], 588_895, 'end\n'])
  })

  test('what a process leaves behind keeps its output open, and does not keep the exec from ending', async () => {
    const left = await ran(link, '(sleep 1000; echo never) & echo started', signal)
    assert.deepEqual([left.stdout, left.exit], ['started\n', { exitCode: 0, timedOut: false }])
    await ran(link, 'pkill -f "sleep 100[0]"', signal)
  })

  test('orphans are reaped', async () => {
    await ran(link, 'for i in 1 2 3 4 5 6 7 8; do (sleep 0.0125 &) ; done', signal)
    const left = 'while ps -eo stat= | grep -q Z || pgrep -f "sleep 0.01[2]5"; do sleep 0.01; done'
    assert.equal((await ran(link, left, signal)).exit?.exitCode, 0)
  })

  test('many at once, each with its own output; ids are never used twice', async () => {
    const numbers = Array.from({ length: 100 }, (_, n) => n)
    const sessions = await Promise.all(
      numbers.map((n) => link.exec({ argv: ['sh', '-c', `echo ${n}; exit ${n}`], tag: `t${n}` }, signal)),
    )
    const results = await Promise.all(sessions.map(({ events }) => collect(events)))
    assert.deepEqual(
      results.map(({ stdout, exit }) => [Number(stdout), exit?.exitCode]),
      numbers.map((n) => [n, n]),
    )
    assert.equal(new Set(sessions.map(({ info }) => info.id)).size, 100)
    const listed = await link.listExecs(signal)
    for (const n of numbers) {
      const info = listed.find(({ tag }) => tag === `t${n}`)
      assert.deepEqual([info?.exit?.exitCode, info?.argv], [n, ['sh', '-c', `echo ${n}; exit ${n}`]])
    }
  })

  test('of exited execs the last thousand are remembered, with 16 MiB of output', async () => {
    const big = await ran(
      link,
      { argv: ['head', '-c', '12000000', '/dev/zero'], keepBytes: 67_108_864, tag: 'first' },
      signal,
    )
    assert.equal(big.stdout.length, 12_000_000)
    await ran(link, { argv: ['head', '-c', '12000000', '/dev/zero'], keepBytes: 67_108_864, tag: 'second' }, signal)
    const find = async (wanted: string) => {
      const info = (await link.listExecs(signal)).find(({ tag }) => tag === wanted)
      assert.ok(info)
      return collect((await link.attach(info.id, {}, signal)).events)
    }
    assert.deepEqual([(await find('first')).stdout.length, (await find('second')).stdout.length], [0, 12_000_000])
    for (let round = 0; round < 11; round++)
      await Promise.all(Array.from({ length: 100 }, () => ran(link, { argv: ['true'] }, signal)))
    const listed = await link.listExecs(signal)
    // Beside those whose output is still open, because a process they left behind holds it.
    assert.ok(listed.filter(({ exit }) => exit).length <= 1010)
    assert.ok(!listed.some(({ tag }) => tag === 'first'))
  })

  test('a session that nobody reads does not hold up others', async () => {
    const unread = await link.exec({ argv: ['sh', '-c', 'seq 1 10000000'], overflow: 'block' }, signal)
    assert.equal((await ran(link, 'echo quick', signal)).stdout, 'quick\n')
    await unread.kill('SIGKILL', signal)
    const all = await collect(unread.events)
    assert.equal(all.exit?.signal, 'SIGKILL')
    assert.equal(all.gaps.length, 0)
  })

  test('a caller that gives up is told so, and the guest goes on', async () => {
    await assert.rejects(link.listExecs(AbortSignal.abort()), { code: 'DeadlineExceeded' })
    const late = { argv: ['true'], tag: 'too late' }
    await assert.rejects(link.exec(late, AbortSignal.abort()), { code: 'DeadlineExceeded' })
    assert.deepEqual(
      (await link.listExecs(signal)).filter(({ tag }) => tag === late.tag),
      [],
    )
    const stopped = new AbortController()
    const cat = await link.exec({ argv: ['sleep', '1000'], stdin: true }, signal)
    const write = cat.writeStdin(Buffer.alloc(1_000_000), { signal: stopped.signal })
    stopped.abort()
    await assert.rejects(write, { code: 'DeadlineExceeded' })
    await cat.kill('SIGKILL', signal)
    assert.equal((await collect(cat.events)).exit?.signal, 'SIGKILL')
  })
})
