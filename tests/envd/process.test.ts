import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  Code,
  ConnectError,
  type EnvdServer,
  type MessageInitShape,
  type ProcessEvent,
  Signal,
  type StreamInputRequestSchema,
} from '../../packages/server/src/e2b/envd/testing.ts'
import { as, EnvdSandboxUnderTest } from './testing.ts'

const signal = AbortSignal.timeout(60_000)

interface Ran {
  pid: number
  stdout: string
  stderr: string
  pty: string
  keepalives: number
  end: { exitCode: number; exited: boolean; status: string; error: string | undefined } | undefined
}

type Responses = AsyncIterable<{ event?: ProcessEvent | undefined }>

/** What a stream of events says, from its first, which must be the start. */
async function collected(responses: Responses, onEvent: (ran: Ran) => void = () => {}): Promise<Ran> {
  const parts = { stdout: [] as Uint8Array[], stderr: [] as Uint8Array[], pty: [] as Uint8Array[] }
  const ran: Ran = { pid: 0, stdout: '', stderr: '', pty: '', keepalives: 0, end: undefined }
  let isFirst = true
  for await (const { event } of responses) {
    if (isFirst) assert.equal(event?.event.case, 'start')
    isFirst = false
    assert.equal(ran.end, undefined, 'nothing comes after the end')
    switch (event?.event.case) {
      case 'start':
        ran.pid = event.event.value.pid
        break
      case 'data': {
        const { output } = event.event.value
        if (output.case) parts[output.case].push(output.value)
        if (output.case) ran[output.case] = Buffer.concat(parts[output.case]).toString()
        break
      }
      case 'keepalive':
        ran.keepalives++
        break
      case 'end': {
        const { exitCode, exited, status, error } = event.event.value
        ran.end = { exitCode, exited, status, error }
      }
    }
    onEvent(ran)
  }
  return ran
}

const code =
  (wanted: Code, message = /./) =>
  (thrown: unknown) => {
    assert.ok(thrown instanceof ConnectError, String(thrown))
    assert.equal(Code[thrown.code], Code[wanted], thrown.message)
    assert.match(thrown.message, message)
    return true
  }

describe('processes by envd', { timeout: 60_000 }, () => {
  let envd: EnvdSandboxUnderTest
  let client: ReturnType<EnvdServer['process']>
  before(async () => {
    envd = await EnvdSandboxUnderTest.start(signal)
    client = envd.server.process()
  })
  after(() => envd?.stop())

  const bash = (command: string, more: object = {}) => ({
    process: { cmd: '/bin/bash', args: ['-l', '-c', command], ...more },
    stdin: false,
  })
  const run = (command: string, more: object = {}, options = {}) =>
    collected(client.start(bash(command, more), { signal, ...options }))
  const isRunning = async (command: string) => {
    const commands = await envd.shell('for f in /proc/[0-9]*/cmdline; do tr "\\0" " " <$f; echo; done', signal)
    return commands.split('\n').some((line) => line.startsWith(command))
  }

  for (const [name, how] of Object.entries({
    'Connect with JSON': {},
    'Connect in binary': { binary: true },
    'Connect over HTTP/2': { http2: true },
    'gRPC-web': { grpcWeb: true, binary: true },
  }))
    test(`${name}: a command says its output and how it ended`, async () => {
      const ran = await collected(
        envd.server.process(how).start(bash('echo "$K" out; echo err >&2; exit 3', { envs: { K: 'v' } }), { signal }),
      )
      assert.deepEqual(ran, {
        pid: ran.pid,
        stdout: 'v out\n',
        stderr: 'err\n',
        pty: '',
        keepalives: 0,
        end: { exitCode: 3, exited: true, status: 'exit status 3', error: 'exit status 3' },
      })
      assert.ok(ran.pid > 1)
    })

  test('on the wire it is what clients of envd expect', async () => {
    const body = JSON.stringify(bash('printf hi'))
    const head = Buffer.alloc(5)
    head.writeUInt32BE(Buffer.byteLength(body), 1)
    const answer = await envd.fetch('/process.Process/Start', {
      method: 'POST',
      headers: { 'content-type': 'application/connect+json', 'connect-protocol-version': '1' },
      body: Buffer.concat([head, Buffer.from(body)]),
      signal,
    })
    assert.equal(answer.headers.get('content-type'), 'application/connect+json')
    let rest = Buffer.from(await answer.arrayBuffer())
    const messages: [number, unknown][] = []
    while (rest.length > 0) {
      const length = rest.readUInt32BE(1)
      messages.push([rest[0] ?? -1, JSON.parse(rest.subarray(5, 5 + length).toString())])
      rest = rest.subarray(5 + length)
    }
    const [start] = messages
    assert.ok(Array.isArray(start))
    assert.deepEqual(messages.slice(1), [
      [0, { event: { data: { stdout: 'aGk=' } } }],
      [0, { event: { end: { exited: true, status: 'exit status 0' } } }],
      [2, {}],
    ])
    assert.match(JSON.stringify(start), /^\[0,\{"event":\{"start":\{"pid":\d+\}\}\}\]$/)
    const unary = await envd.fetch('/process.Process/List', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{}',
    })
    assert.deepEqual([unary.status, await unary.json()], [200, {}])
    const unknown = await envd.fetch('/process.Process/SendSignal', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{"process":{"pid":999999},"signal":"SIGNAL_SIGKILL"}',
    })
    assert.deepEqual(
      [unknown.status, await unknown.json()],
      [404, { code: 'not_found', message: 'process with pid 999999 not found' }],
    )
  })

  test('user, directory and environment are those of a login, or as asked', async () => {
    const facts = 'echo $(id -un) $(pwd) $HOME $USER $LOGNAME $FROM_SANDBOX; command -v ls'
    assert.equal((await run(facts)).stdout, 'user /home/user /home/user user user yes\n/usr/bin/ls\n')
    assert.equal((await run(facts, { cwd: '/' }, as('root'))).stdout, 'root / /root root root yes\n/usr/bin/ls\n')
    await envd.shell('mkdir -p /home/user/sub', signal)
    assert.equal((await run('pwd', { cwd: 'sub' })).stdout, '/home/user/sub\n')
    assert.equal((await run('pwd', { cwd: '~/sub' })).stdout, '/home/user/sub\n')
    await assert.rejects(run('true', { cwd: '/nowhere' }), code(Code.InvalidArgument, /cwd '\/nowhere' does not exist/))
    await assert.rejects(run('true', {}, as('stranger')), code(Code.Unauthenticated, /stranger/))
    await assert.rejects(
      collected(client.start({ process: { cmd: '/no/such/program' } }, { signal })),
      code(Code.InvalidArgument, /no\/such\/program/),
    )
    await assert.rejects(collected(client.start({}, { signal })), code(Code.InvalidArgument))
  })

  test('a process goes on in a directory that is deleted, and none starts there', async () => {
    await envd.shell('mkdir -m 777 /home/user/doomed; chown user /home/user/doomed', signal)
    const ran = await run('rm -r ~/doomed; echo still here', { cwd: 'doomed' })
    assert.equal(ran.stdout, 'still here\n')
    await assert.rejects(run('true', { cwd: 'doomed' }), code(Code.InvalidArgument))
  })

  test('stdin is open unless it is refused, takes input in order, and is closed on demand', async () => {
    assert.equal((await run('cat; echo end')).stdout, 'end\n')
    const pid = Promise.withResolvers<number>()
    const ending = collected(client.start({ process: { cmd: 'cat' } }, { signal }), (ran) => pid.resolve(ran.pid))
    const process = { selector: { case: 'pid' as const, value: await pid.promise } }
    const send = (text: string) =>
      client.sendInput({ process, input: { input: { case: 'stdin', value: Buffer.from(text) } } })
    await send('one ')
    await send('two ')
    async function* stream(): AsyncGenerator<MessageInitShape<typeof StreamInputRequestSchema>> {
      yield { event: { case: 'start' as const, value: { process } } }
      yield { event: { case: 'keepalive' as const, value: {} } }
      for (const text of ['three ', 'four'])
        yield {
          event: {
            case: 'data' as const,
            value: { input: { input: { case: 'stdin' as const, value: Buffer.from(text) } } },
          },
        }
    }
    await client.streamInput(stream())
    await assert.rejects(
      client.sendInput({ process, input: { input: { case: 'pty', value: Buffer.from('x') } } }),
      code(Code.InvalidArgument),
    )
    await client.closeStdin({ process })
    const ran = await ending
    assert.deepEqual([ran.stdout, ran.end?.exitCode], ['one two three four', 0])
    await assert.rejects(send('late'), code(Code.NotFound))
  })

  test('input of many at once is not lost', async () => {
    const pid = Promise.withResolvers<number>()
    const ending = collected(client.start({ process: { cmd: 'wc', args: ['-c'] } }, { signal }), (ran) =>
      pid.resolve(ran.pid),
    )
    const process = { selector: { case: 'pid' as const, value: await pid.promise } }
    const value = Buffer.alloc(100_000, 'x')
    await Promise.all(
      Array.from({ length: 20 }, () => client.sendInput({ process, input: { input: { case: 'stdin', value } } })),
    )
    await client.closeStdin({ process })
    assert.equal((await ending).stdout.trim(), '2000000')
  })

  test('a terminal has a size that changes, takes keys, and says all on one stream', async () => {
    const pid = Promise.withResolvers<number>()
    let text = ''
    const stream = client.start(
      {
        process: { cmd: '/bin/bash', args: ['-i', '-l'], envs: { TERM: 'xterm-256color', PS1: '$ ' } },
        pty: { size: { cols: 81, rows: 25 } },
      },
      { signal },
    )
    const ending = collected(stream, (ran) => {
      pid.resolve(ran.pid)
      text = ran.pty
    })
    const process = { selector: { case: 'pid' as const, value: await pid.promise } }
    const type = (keys: string) =>
      client.sendInput({ process, input: { input: { case: 'pty', value: Buffer.from(keys) } } })
    const shows = async (pattern: RegExp) => {
      while (!pattern.test(text)) await sleep(5, undefined, { signal })
    }
    await type('stty size; echo $TERM\n')
    await shows(/25 81\r\nxterm-256color/)
    await client.update({ process, pty: { size: { cols: 100, rows: 30 } } })
    await type('stty size; echo to stderr >&2\n')
    await shows(/30 100\r\nto stderr/)
    await assert.rejects(client.closeStdin({ process }), code(Code.FailedPrecondition))
    await assert.rejects(
      client.sendInput({ process, input: { input: { case: 'stdin', value: Buffer.from('x') } } }),
      code(Code.InvalidArgument),
    )
    await type('exit 4\n')
    const ran = await ending
    assert.deepEqual([ran.end?.exitCode, ran.stdout, ran.stderr], [4, '', ''])
  })

  test('signals go to the process group, and say what ended the process', async () => {
    for (const [number, status] of [
      [Signal.SIGKILL, 'signal: killed'],
      [Signal.SIGTERM, 'signal: terminated'],
    ] as const) {
      const pid = Promise.withResolvers<number>()
      const ending = collected(client.start(bash('sleep 4321 & wait'), { signal }), (ran) => pid.resolve(ran.pid))
      const process = { selector: { case: 'pid' as const, value: await pid.promise } }
      while (!(await isRunning('sleep 4321'))) await sleep(5)
      await client.sendSignal({ process, signal: number })
      assert.deepEqual((await ending).end, { exitCode: -1, exited: false, status, error: status })
      while (await isRunning('sleep 4321')) await sleep(5)
      await assert.rejects(client.sendSignal({ process, signal: number }), code(Code.NotFound))
    }
    const process = { selector: { case: 'tag' as const, value: 'nobody' } }
    await assert.rejects(client.sendSignal({ process, signal: Signal.SIGKILL }), code(Code.NotFound))
    await assert.rejects(client.sendSignal({ process, signal: Signal.UNSPECIFIED }), code(Code.Unimplemented))
    await assert.rejects(client.sendSignal({ signal: Signal.SIGKILL }), code(Code.InvalidArgument))
  })

  test('a client that goes away ends nothing; another goes on from where it comes', async () => {
    const leave = new AbortController()
    const first = client.start(
      {
        process: { cmd: '/bin/bash', args: ['-c', 'echo old; read line; echo got $line; read line'], envs: { A: '1' } },
        tag: 'kept',
      },
      { signal: leave.signal },
    )
    await assert.rejects(
      collected(first, ({ stdout }) => {
        if (stdout === 'old\n') leave.abort()
      }),
      code(Code.Canceled),
    )
    const process = { selector: { case: 'tag' as const, value: 'kept' } }
    const { processes } = await client.list({})
    const listed = processes.find(({ tag }) => tag === 'kept')
    assert.deepEqual(
      [listed?.config?.cmd, listed?.config?.args[0], listed?.config?.envs, listed?.config?.cwd],
      ['/bin/bash', '-c', { A: '1' }, '/home/user'],
    )
    const connected = Promise.withResolvers<void>()
    const second = collected(client.connect({ process }, { signal }), (ran) => {
      assert.equal(ran.pid, listed?.pid)
      connected.resolve()
    })
    await connected.promise
    const send = (text: string) =>
      client.sendInput({ process, input: { input: { case: 'stdin', value: Buffer.from(text) } } })
    await send('input\n')
    while (!(await isRunning('/bin/bash -c echo old; read'))) await sleep(5)
    await send('\n')
    const ran = await second
    assert.deepEqual([ran.stdout, ran.end?.exitCode], ['got input\n', 0])
    await assert.rejects(collected(client.connect({ process }, { signal })), code(Code.NotFound))
  })

  test('output that nobody is there to read does not hold the process up', async () => {
    const leave = new AbortController()
    const stream = client.start(bash('echo ready; head -c 30000000 /dev/zero; touch /tmp/unread'), {
      signal: leave.signal,
    })
    await assert.rejects(
      collected(stream, () => leave.abort()),
      code(Code.Canceled),
    )
    await envd.shell('until [ -e /tmp/unread ]; do sleep 0.02; done', signal)
  })

  test('a deadline ends the process, for its client and without it', async () => {
    await assert.rejects(run('sleep 5432', {}, { timeoutMs: 300 }), code(Code.DeadlineExceeded))
    while (await isRunning('sleep 5432')) await sleep(5)
    const leave = new AbortController()
    const stream = client.start(
      { process: { cmd: 'sleep', args: ['6543'] } },
      { signal: leave.signal, timeoutMs: 2000 },
    )
    await assert.rejects(
      collected(stream, () => leave.abort()),
      code(Code.Canceled),
    )
    assert.equal(await isRunning('sleep 6543'), true)
    while (await isRunning('sleep 6543')) await sleep(20)
    // None, and more than any timer takes, are no deadline.
    for (const timeout of ['0', '99999999999'])
      assert.equal((await run('echo fine', {}, { headers: { 'connect-timeout-ms': timeout } })).stdout, 'fine\n')
  })

  test('a silent process is told to be alive', async () => {
    const ran = await run('sleep 0.9; echo x', {}, { headers: { 'keepalive-ping-interval': '0.2' } })
    assert.ok(ran.keepalives >= 2, `${ran.keepalives}`)
    assert.equal(ran.stdout, 'x\n')
  })

  test('20 MB reach a slow reader whole, and the server keeps none of them', async () => {
    const body = JSON.stringify(bash('head -c 20000000 /dev/zero'))
    const head = Buffer.alloc(5)
    head.writeUInt32BE(Buffer.byteLength(body), 1)
    const before = process.memoryUsage.rss()
    const answer = await envd.fetch('/process.Process/Start', {
      method: 'POST',
      headers: { 'content-type': 'application/connect+json' },
      body: Buffer.concat([head, Buffer.from(body)]),
      signal,
    })
    // Longer than a guest would wait for a reader that has gone.
    await sleep(3000)
    assert.equal(await isRunning('head -c 20000000'), true)
    assert.ok(process.memoryUsage.rss() - before < 15_000_000)
    let bytes = 0
    let rest = Buffer.alloc(0)
    for await (const chunk of answer.body ?? []) {
      rest = Buffer.concat([rest, chunk])
      for (let length = 0; rest.length >= 5; rest = rest.subarray(5 + length)) {
        length = rest.readUInt32BE(1)
        if (rest.length < 5 + length) break
        const { event } = JSON.parse(rest.subarray(5, 5 + length).toString())
        bytes += Buffer.from(event?.data?.stdout ?? '', 'base64').length
      }
    }
    assert.equal(bytes, 20_000_000)
  })
})
