import assert from 'node:assert/strict'
import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import { test } from 'node:test'
import type { ExecEvent } from '@icebox/model'
import fc from 'fast-check'
import { IceboxError } from './error.ts'
import { LineDecoder } from './streams.ts'
import { type Asked, peer, sendJson } from './testing.ts'

const INFO = {
  id: '7',
  pid: 42,
  argv: ['x'],
  cwd: '/',
  user: 'root',
  pty: false,
  startedAt: '2026-01-01T00:00:00.000Z',
  stdoutBytes: 0,
  stderrBytes: 0,
  stdinBytes: 0,
}
const line = (object: unknown) => `${JSON.stringify(object)}\n`
const started = line({ type: 'started', exec: INFO })
const output = (stream: string, offset: number, text: string) =>
  line({ type: 'output', stream, offset, data: Buffer.from(text).toString('base64') })
const exit = (code: number) => line({ type: 'exit', exit: { exitCode: code, timedOut: false } })
const isStart = (asked: Asked) => asked.method === 'POST' && asked.path.endsWith('/execs')
const isAttach = (asked: Asked) => asked.method === 'GET' && asked.path.endsWith('/execs/7/output')
const begin = (response: ServerResponse) => response.writeHead(200, { 'content-type': 'application/x-ndjson' })

test('lines come out the same however the text is cut', () => {
  fc.assert(
    fc.property(
      fc.array(fc.dictionary(fc.string(), fc.string({ unit: 'grapheme' }))),
      fc.infiniteStream(fc.nat(9)),
      (objects, cuts) => {
        const text = objects.map(line).join('')
        const decoder = new LineDecoder()
        const seen: unknown[] = []
        let at = 0
        for (const cut of cuts) {
          if (at >= text.length) break
          seen.push(...decoder.push(text.slice(at, at + cut + 1)))
          at += cut + 1
        }
        assert.deepEqual(seen, JSON.parse(JSON.stringify(objects)))
      },
    ),
  )
})

test('awaiting an exec gives its output and exit code', async (t) => {
  const { sandbox, asked } = await peer(t, (_, response) => {
    begin(response).end(started + output('stdout', 0, 'grüße\n') + output('stderr', 0, 'oh\n') + exit(3))
  })
  const result = await sandbox.exec(['x', 'y z'], { env: { A: 'b' }, cwd: '/tmp', user: 'me', timeoutMs: 5000 })
  assert.deepEqual(result, { exitCode: 3, timedOut: false, stdout: 'grüße\n', stderr: 'oh\n', truncated: false })
  assert.deepEqual(JSON.parse(asked[0]?.body ?? ''), {
    argv: ['x', 'y z'],
    cwd: '/tmp',
    env: { A: 'b' },
    overflow: 'block',
    stdin: false,
    timeoutMs: 5000,
    user: 'me',
  })
  assert.equal(asked[0]?.headers['x-api-key'], 'key')
})

test('iterating an exec gives events in order and last the exit', async (t) => {
  const { sandbox } = await peer(t, (_, response) => {
    begin(response).write(started + output('stdout', 0, 'a'))
    response.end(`${line({ type: 'gap', stream: 'stdout', from: 1, to: 9 })}${output('stdout', 9, 'b')}${exit(0)}`)
  })
  const exec = sandbox.exec(['x'])
  const events: ExecEvent[] = []
  for await (const event of exec) events.push(event)
  assert.deepEqual(
    events.map((event) => (event.type === 'output' ? { ...event, data: Buffer.from(event.data).toString() } : event)),
    [
      { type: 'output', stream: 'stdout', offset: 0, data: 'a' },
      { type: 'gap', stream: 'stdout', from: 1, to: 9 },
      { type: 'output', stream: 'stdout', offset: 9, data: 'b' },
      { type: 'exit', exit: { exitCode: 0, timedOut: false } },
    ],
  )
  assert.equal((await exec).exitCode, 0)
  assert.equal((await exec.started).pid, 42)
  await assert.rejects(async () => {
    for await (const _ of exec) assert.fail('a second reader got output')
  }, TypeError)
})

test('a stream that was cut is attached to again where it was', async (t) => {
  const { sandbox, asked } = await peer(t, (one, response) => {
    begin(response)
    if (isStart(one)) {
      // Cut in the middle of a line, after three bytes of stdout.
      response.write(`${started}${output('stdout', 0, 'abc')}{"type":"outp`, () => response.destroy())
    } else if (one.query.get('stdoutFrom') === '3' && one.query.get('stderrFrom') === '0') {
      // Repeats two bytes that were there before.
      response.end(started + output('stdout', 1, 'bcdef') + output('stderr', 0, '!') + exit(0))
    }
  })
  const result = await sandbox.exec(['x'])
  assert.deepEqual([result.stdout, result.stderr, result.exitCode], ['abcdef', '!', 0])
  assert.deepEqual(asked.map(isAttach), [false, true])
})

test('a server that says that it goes down is waited for', async (t) => {
  const error = { code: 'Unavailable', message: 'the server is shutting down', remedy: 'Start it again.' }
  let refusals = 3
  const { sandbox } = await peer(t, (one, response) => {
    if (isStart(one)) begin(response).end(started + output('stdout', 0, 'abc') + line({ type: 'error', error }))
    else if (refusals-- > 0) sendJson(response, 503, error)
    else begin(response).end(started + output('stdout', 3, 'def') + exit(0))
  })
  const result = await sandbox.exec(['x'])
  assert.deepEqual([result.stdout, result.exitCode], ['abcdef', 0])
})

test('a stream that is cut again and again ends in GuestFailed after three tries in vain', async (t) => {
  const { sandbox, asked } = await peer(t, (one, response) => {
    begin(response)
    if (isStart(one)) response.write(started, () => response.destroy())
    else response.destroy()
  })
  await assert.rejects(async () => await sandbox.exec(['x']), { code: 'GuestFailed' })
  assert.equal(asked.filter(isStart).length, 1)
  assert.ok(asked.filter(isAttach).length >= 3)
})

test('a process whose start was not confirmed is not started a second time', async (t) => {
  const { sandbox, asked } = await peer(t, (_, response) => {
    response.destroy()
  })
  const exec = sandbox.exec(['x'])
  await assert.rejects(async () => await exec, { code: 'Unavailable' })
  await assert.rejects(exec.started, { code: 'Unavailable' })
  assert.equal(asked.length, 1)
})

test('an error among the lines is thrown as it is', async (t) => {
  const error = { code: 'InvalidState', message: 'the sandbox was paused', remedy: 'Resume it.' }
  const { sandbox } = await peer(t, (_, response) => {
    begin(response).end(started + output('stdout', 0, 'a') + line({ type: 'error', error }))
  })
  await assert.rejects(
    async () => await sandbox.exec(['x']),
    (thrown) => thrown instanceof IceboxError && thrown.code === 'InvalidState' && thrown.remedy === 'Resume it.',
  )
})

test('stdin goes in pieces with offsets, again when it was not acknowledged, and then ends', async (t) => {
  let live: ServerResponse | undefined
  const taken: string[] = []
  let cut = true
  const { sandbox, asked } = await peer(t, (one, response) => {
    if (isStart(one)) {
      live = response
      begin(response).write(started)
      return
    }
    if (cut) {
      cut = false
      response.destroy()
      return
    }
    taken.push(`${one.query.get('offset')}:${one.body}`)
    response.writeHead(204).end()
    if (one.query.get('close') === 'true') live?.end(exit(0))
  })
  const exec = sandbox.exec(['cat'], { stdin: true })
  const writes = [exec.stdin.write('one'), exec.stdin.write(Buffer.from('two')), exec.stdin.close()]
  await Promise.all(writes)
  assert.deepEqual(taken, ['0:one', '3:two', '6:'])
  assert.equal(asked.filter((one) => one.path.endsWith('/stdin')).length, 4)
  assert.equal((await exec).exitCode, 0)
})

test('stdin waits for a server that is away for a while, as its output does', { timeout: 60_000 }, async (t) => {
  let live: ServerResponse | undefined
  let cuts = 0
  let taken = ''
  const { sandbox } = await peer(t, (one, response) => {
    if (isStart(one)) {
      live = response
      begin(response).write(started)
    } else if (cuts < 8) {
      cuts += 1
      response.destroy()
    } else {
      taken += one.body
      response.writeHead(204).end()
      live?.end(exit(0))
    }
  })
  assert.equal((await sandbox.exec(['cat'], { stdin: 'text' })).exitCode, 0)
  assert.equal(taken, 'text')
})

test('stdin that cannot be given to the process fails the exec, unless the process wants no more', {
  timeout: 60_000,
}, async (t) => {
  let live: ServerResponse | undefined
  let error = { code: 'GuestFailed', message: 'the guest is gone', remedy: 'Look at its logs.' }
  const { sandbox } = await peer(t, (one, response) => {
    if (isStart(one)) {
      live = response
      begin(response).write(started)
    } else {
      sendJson(response, 502, error)
      if (error.code === 'InvalidState') live?.end(exit(3))
    }
  })
  const exec = sandbox.exec(['cat'], { stdin: 'text' })
  await assert.rejects(async () => await exec, { code: 'GuestFailed', message: 'the guest is gone' })
  error = { code: 'InvalidState', message: 'the process has closed its stdin', remedy: 'Write no more.' }
  assert.equal((await sandbox.exec(['true'], { stdin: 'text' })).exitCode, 3)
})

test('leaving the loop and detach let go of the stream and do not end the process', async (t) => {
  const streams: ServerResponse[] = []
  const { sandbox, asked } = await peer(t, (_, response) => {
    streams.push(response)
    begin(response).write(started + output('stdout', 0, 'a'))
  })
  const closed = async () => {
    const stream = streams.at(-1)
    if (stream !== undefined && !stream.closed) await once(stream, 'close')
  }
  const left = sandbox.exec(['x'])
  for await (const event of left) if (event.type === 'output') break
  await closed()
  await assert.rejects(async () => await left, { code: 'GuestFailed' })
  const detached = sandbox.exec(['x'])
  await detached.started
  detached.detach()
  await closed()
  assert.equal(asked.length, 2)
})

test('detaching before the server has answered ends the wait', async (t) => {
  const { sandbox } = await peer(t, () => {})
  const exec = sandbox.exec(['x'])
  exec.detach()
  await assert.rejects(exec.started, { code: 'GuestFailed' })
  await assert.rejects(async () => await exec, { code: 'GuestFailed' })
})

test('an aborted exec rejects with the reason of its signal', async (t) => {
  const { sandbox } = await peer(t, (_, response) => {
    begin(response).write(started)
  })
  const controller = new AbortController()
  const exec = sandbox.exec(['x'], { signal: controller.signal })
  await exec.started
  controller.abort(new Error('enough'))
  await assert.rejects(async () => await exec, { message: 'enough' })
})

test('attach, signals and window size speak of the exec by its id', async (t) => {
  const { sandbox, asked } = await peer(t, (one, response) => {
    if (isAttach(one)) begin(response).end(started + output('stdout', 100, 'late') + exit(0))
    else response.writeHead(204).end()
  })
  const exec = sandbox.attach('7', { stdoutFrom: 100 })
  await exec.kill('SIGINT')
  await exec.resize(120, 40)
  assert.equal((await exec).stdout, 'late')
  assert.equal(asked[0]?.query.get('stdoutFrom'), '100')
  assert.equal(asked[0]?.query.has('stderrFrom'), false)
  assert.deepEqual(
    asked.slice(1).map((one) => [one.path.split('/').at(-1), JSON.parse(one.body)]),
    [
      ['signal', { signal: 'SIGINT' }],
      ['resize', { cols: 120, rows: 40 }],
    ],
  )
})

test('a reader that does not read holds the server back, and gets it all when it does', async (t) => {
  const piece = 'x'.repeat(64 * 1024)
  const pieces = 512
  let written = 0
  const { sandbox } = await peer(t, async (_, response) => {
    begin(response).write(started)
    for (let n = 0; n < pieces; n += 1) {
      const room = response.write(output('stdout', n * piece.length, piece))
      written += 1
      if (!room) await once(response, 'drain')
    }
    response.end(exit(0))
  })
  const exec = sandbox.exec(['x'])
  let bytes = 0
  let ahead = 0
  for await (const event of exec) {
    if (event.type !== 'output') continue
    bytes += event.data.byteLength
    ahead = Math.max(ahead, written - bytes / piece.length)
  }
  assert.equal(bytes, pieces * piece.length)
  assert.ok(ahead < pieces / 2, `the server was ${ahead} of ${pieces} pieces ahead`)
})

test('a program that cannot be started is an error of the server', async (t) => {
  const { sandbox } = await peer(t, (_, response) =>
    sendJson(response, 400, { code: 'InvalidArgument', message: 'no such program', remedy: 'Install it.' }),
  )
  await assert.rejects(async () => await sandbox.exec(['x']), { code: 'InvalidArgument', status: 400 })
})

test('a command line in one string is refused, and nothing is asked of the server', async (t) => {
  const { asked, sandbox } = await peer(t, () => undefined)
  const line = 'ls -la' as unknown as string[]
  assert.throws(() => sandbox.exec(line), /argv is a list/)
  await assert.rejects(sandbox.spawn(line), /argv is a list/)
  assert.deepEqual(asked, [])
})
