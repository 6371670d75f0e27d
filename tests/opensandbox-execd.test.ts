import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { after, before, describe, it } from 'node:test'
import { BASE_IMAGE } from '@icebox/node'
import { type ExecdOptions, execdFacade } from '@icebox/server'
import { openParts, type Parts } from './faults/parts.ts'
import { eventually } from './server-process.ts'

/** execd's API for a real sandbox, called as OpenSandbox's clients call it. */

let directory: string
let parts: Parts
let sandbox: string
const signal = () => AbortSignal.timeout(300_000)

/** A server that has nothing but the façade, for one sandbox. */
async function serve(options: Partial<ExecdOptions> = {}) {
  const closing = new AbortController()
  const facade = execdFacade({
    reach: (id, until) => parts.control.traffic.reach(id, until),
    user: async () => '',
    token: async () => undefined,
    closing: closing.signal,
    ...options,
  })
  const server: Server = createServer((request, response) => {
    void facade(request, response, {
      sandbox: String(request.headers['x-sandbox'] ?? sandbox),
      path: request.url ?? '/',
      key: false,
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return {
    url,
    closing,
    async close() {
      closing.abort()
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}
let served: Awaited<ReturnType<typeof serve>>

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'icebox-execd-'))
  parts = await openParts(directory)
  const image = await parts.control.installation.images.pull(BASE_IMAGE, () => undefined, signal())
  const accepted = await parts.control
    .project('default')
    .sandboxes.create({ image: { uri: image.spec.digest }, env: { FROM_CREATE: 'yes' }, metadata: {} }, signal())
  sandbox = (await accepted.settled).metadata.name
  served = await serve()
})
after(async () => {
  await served?.close()
  await parts?.control.close('kill', signal())
  await parts?.data.close()
  await rm(directory, { recursive: true, force: true })
})

const call = (method: string, path: string, init: RequestInit = {}) => fetch(served.url + path, { method, ...init })
const json = (body: unknown): RequestInit => ({
  body: JSON.stringify(body),
  headers: { 'content-type': 'application/json' },
})
async function ok(method: string, path: string, init: RequestInit = {}): Promise<Response> {
  const response = await call(method, path, init)
  if (!response.ok) assert.fail(`${method} ${path}: ${response.status} ${await response.text()}`)
  return response
}
const answerOf = async <T>(method: string, path: string, init: RequestInit = {}): Promise<T> =>
  (await ok(method, path, init)).json() as Promise<T>
async function refused(method: string, path: string, init: RequestInit = {}) {
  const response = await call(method, path, init)
  const body = (await response.json()) as { code: string; message: string }
  assert.deepEqual(Object.keys(body).sort(), ['code', 'message'])
  assert.ok(response.headers.get('x-request-id'))
  return [response.status, body.code]
}

interface Event {
  type: string
  text?: string
  timestamp: number
  execution_time?: number
  error?: { ename: string; evalue: string; traceback: string[] }
}
async function* events(response: Response): AsyncGenerator<Event> {
  assert.equal(response.headers.get('content-type'), 'text/event-stream')
  let rest = ''
  for await (const chunk of response.body ?? []) {
    const frames = (rest + Buffer.from(chunk).toString()).split('\n\n')
    rest = frames.pop() ?? ''
    for (const frame of frames) {
      const event: Event = JSON.parse(frame.replace(/^data: /, ''))
      assert.ok(event.timestamp > 0)
      if (event.type !== 'ping') yield event
    }
  }
  assert.equal(rest, '')
}
async function next(all: AsyncGenerator<Event>): Promise<Event> {
  const { value, done } = await all.next()
  if (done === true) assert.fail('the stream has ended')
  return value
}
async function run(path: string, body: object) {
  const all: Event[] = []
  for await (const event of events(await ok('POST', path, json(body)))) all.push(event)
  const [first] = all
  assert.equal(first?.type, 'init')
  const texts = (type: string) => all.filter((event) => event.type === type).map(({ text }) => text)
  return { id: first?.text ?? '', stdout: texts('stdout'), stderr: texts('stderr'), last: all.at(-1), all }
}
const command = (text: string, rest: object = {}) => run('/command', { command: text, ...rest })
interface CodeContext {
  id: string
  language: string
}
interface Info {
  path: string
  type: string
  owner: string
  modified_at: string
  created_at: string
}
interface Status {
  running: boolean
  exit_code?: number
  error?: string
  content: string
}
const status = (id: string) => answerOf<Status>('GET', `/command/status/${id}`)

describe('a command', () => {
  it('gives its id, its lines as they are written, and its end', async () => {
    const { id, stdout, stderr, last } = await command('echo one; echo; printf two; echo bad >&2')
    assert.match(id, /^\d+$/)
    assert.deepEqual(stdout, ['one', '', 'two'])
    assert.deepEqual(stderr, ['bad'])
    assert.equal(last?.type, 'execution_complete')
    assert.ok((last?.execution_time ?? -1) >= 0)
    const answer = await status(id)
    assert.equal(answer.running, false)
    assert.equal(answer.exit_code, 0)
    assert.equal(answer.error, undefined)
    assert.match(answer.content, /^echo one/)
  })

  it('that fails gives an error with its exit code, and is not complete', async () => {
    const { id, last, all } = await command('echo before; exit 7')
    assert.deepEqual(last?.error, { ename: 'CommandExecError', evalue: '7', traceback: ['exit status 7'] })
    assert.ok(!all.some(({ type }) => type === 'execution_complete'))
    assert.equal((await status(id)).exit_code, 7)
    assert.equal((await command('kill -9 $$')).last?.error?.evalue, '-1')
  })

  it('is seen while it runs', async () => {
    const response = await ok(
      'POST',
      '/command',
      json({ command: 'echo first; until [ -e /tmp/go ]; do sleep 0.05; done' }),
    )
    const all = events(response)
    const { text: id = '' } = await next(all)
    assert.deepEqual((await next(all)).text, 'first')
    assert.equal((await status(id)).running, true)
    await command('touch /tmp/go')
    assert.equal((await next(all)).type, 'execution_complete')
  })

  it('runs as a user, in a directory, with variables, in bash', async () => {
    assert.deepEqual((await command('id -u; id -g', { uid: 65534, gid: 1234 })).stdout, ['65534', '1234'])
    assert.deepEqual(
      (
        await command('pwd; echo $A $FROM_CREATE; test -z $BASH_VERSION || echo bash', {
          cwd: '/usr',
          envs: { A: 'b c' },
        })
      ).stdout,
      ['/usr', 'b c yes', 'bash'],
    )
    assert.deepEqual(await refused('POST', '/command', json({ command: 'true', gid: 1 })), [
      400,
      'INVALID_REQUEST_BODY',
    ])
    assert.deepEqual(await refused('POST', '/command', json({ command: 'true', cwd: '/nowhere' })), [
      400,
      'INVALID_REQUEST_BODY',
    ])
    assert.deepEqual(await refused('POST', '/command', json({})), [400, 'INVALID_REQUEST_BODY'])
  })

  it('may be a program with arguments that no shell sees', async () => {
    assert.deepEqual((await run('/command', { argv: ['printf', '%s|', '$HOME', 'a b'] })).stdout, ['$HOME|a b|'])
    const missing = await run('/command', { argv: ['no-such-program'] })
    assert.equal(missing.last?.error?.ename, 'CommandExecError')
    assert.match(missing.last?.error?.evalue ?? '', /no-such-program/)
  })

  it('ends at its timeout', async () => {
    const { last } = await command('echo started; sleep 60', { timeout: 300 })
    assert.match(last?.error?.traceback[0] ?? '', /timeout/)
  })

  it('writes more than anything holds at once, and every line arrives', async () => {
    const { stdout, last } = await command('seq 1 400000')
    assert.equal(last?.type, 'execution_complete')
    assert.equal(stdout.length, 400_000)
    assert.equal(stdout.at(-1), '400000')
  })

  it('ends when its client leaves, with all that it started', async () => {
    const leaving = new AbortController()
    const response = await ok('POST', '/command', {
      ...json({ command: 'echo up; sleep 1000.25 & sleep 1000.25' }),
      signal: leaving.signal,
    })
    const all = events(response)
    const { text: id = '' } = await next(all)
    assert.equal((await next(all)).text, 'up')
    leaving.abort()
    await eventually(async () => ((await status(id)).running ? undefined : true), 'the command has ended')
    assert.deepEqual((await command('pgrep -fc "^sleep 1000.25" || true')).stdout, ['0'])
  })

  it('goes on when the server closes, and is found by the next one', async () => {
    const other = await serve()
    const response = await fetch(`${other.url}/command`, {
      method: 'POST',
      ...json({ command: 'echo up; until [ -e /tmp/end ]; do sleep 0.05; done' }),
    })
    const all = events(response)
    const { text: id = '' } = await next(all)
    assert.equal((await next(all)).text, 'up')
    other.closing.abort()
    const told = await next(all)
    assert.equal(told.error?.ename, 'Unavailable')
    await other.close()
    assert.equal((await status(id)).running, true)
    await command('touch /tmp/end')
    const ended = await eventually(async () => {
      const now = await status(id)
      return now.running ? undefined : now
    }, 'the command has ended')
    assert.equal(ended.exit_code, 0)
  })

  it('is interrupted by its id, and with force when it does not listen', async () => {
    for (const text of ['sleep 1000', 'trap "" TERM; echo up; while :; do sleep 0.1; done']) {
      const response = await ok('POST', '/command', json({ command: text }))
      const all = events(response)
      const { text: id = '' } = await next(all)
      await ok('DELETE', `/command?id=${id}`)
      const rest: Event[] = []
      for await (const event of all) rest.push(event)
      assert.equal(rest.at(-1)?.error?.evalue, '-1')
      assert.equal((await status(id)).running, false)
      await ok('DELETE', `/command?id=${id}`)
    }
    assert.deepEqual(await refused('DELETE', '/command?id=1'), [404, 'CONTEXT_NOT_FOUND'])
    assert.deepEqual(await refused('DELETE', '/command'), [400, 'MISSING_QUERY'])
    assert.deepEqual(await refused('GET', '/command/status/nothing'), [404, 'CONTEXT_NOT_FOUND'])
  })
})

describe('a command in the background', () => {
  const logs = async (id: string, cursor?: string) => {
    const response = await ok('GET', `/command/${id}/logs${cursor === undefined ? '' : `?cursor=${cursor}`}`)
    return { text: await response.text(), cursor: response.headers.get('execd-commands-tail-cursor') ?? '' }
  }

  it('is answered at once; what it writes is read bit by bit, both streams in order', async () => {
    const { id, all } = await command(
      'echo one; echo two >&2; echo three; until [ -e /tmp/more ]; do sleep 0.05; done; echo four; exit 3',
      {
        background: true,
      },
    )
    assert.deepEqual(
      all.map(({ type }) => type),
      ['init', 'execution_complete'],
    )
    const first = await eventually(async () => {
      const read = await logs(id)
      return read.text.includes('three') ? read : undefined
    }, 'three lines')
    assert.equal(first.text, 'one\ntwo\nthree\n')
    assert.deepEqual(await logs(id, first.cursor), { text: '', cursor: first.cursor })
    assert.equal((await status(id)).running, true)
    assert.match((await status(id)).content, /^echo one/)
    await command('touch /tmp/more')
    await eventually(async () => ((await status(id)).running ? undefined : true), 'it has ended')
    assert.equal((await logs(id, first.cursor)).text, 'four\n')
    assert.equal((await logs(id)).text, 'one\ntwo\nthree\nfour\n')
    assert.equal((await logs(id, '999999')).text, '')
    assert.equal((await status(id)).exit_code, 3)
    assert.equal((await status(id)).error, 'exit status 3')
  })

  it('is known by its id after a pause', async () => {
    const { id } = await command('echo before; until [ -e /tmp/after ]; do sleep 0.05; done; echo after', {
      background: true,
    })
    await eventually(async () => ((await logs(id)).text === 'before\n' ? true : undefined), 'it has written')
    await (await parts.control.project('default').sandboxes.pause(sandbox, {}, signal())).settled
    for (const [method, path] of [
      ['GET', '/ping'],
      ['GET', `/command/status/${id}`],
      ['GET', '/files/info?path=/etc/hostname'],
    ] as const)
      assert.deepEqual(await refused(method, path), [502, 'SANDBOX_NOT_RUNNING'], path)
    await (await parts.control.project('default').sandboxes.resume(sandbox, signal())).settled
    assert.equal((await status(id)).running, true)
    await command('touch /tmp/after')
    await eventually(async () => ((await logs(id)).text === 'before\nafter\n' ? true : undefined), 'it went on')
  })

  it('has logs, one in the foreground has none', async () => {
    const { id } = await command('true')
    assert.deepEqual(await refused('GET', `/command/${id}/logs`), [400, 'INVALID_REQUEST_BODY'])
    assert.deepEqual(await refused('GET', '/command/nothing/logs'), [404, 'CONTEXT_NOT_FOUND'])
    assert.deepEqual(await refused('GET', `/command/${id}/logs?cursor=-1`), [400, 'MISSING_QUERY'])
  })
})

describe('variables for all commands', () => {
  it('are kept in the file that EXECD_ENVS names', async () => {
    await command(`mkdir -p "$(dirname "$EXECD_ENVS")"; printf '%s\\n' "KEPT='two words'" >> "$EXECD_ENVS"`)
    assert.deepEqual((await command('echo "$KEPT"')).stdout, ['two words'])
    assert.deepEqual((await command('echo "$KEPT"', { envs: { KEPT: 'mine' } })).stdout, ['mine'])
  })
})

describe('a session', () => {
  const create = async (body?: object) =>
    (await answerOf<{ session_id: string }>('POST', '/session', body === undefined ? {} : json(body))).session_id
  const inSession = (id: string, text: string, rest: object = {}) =>
    run(`/session/${id}/run`, { command: text, ...rest })

  it('keeps directory and environment, also over a run that ends its shell', async () => {
    const id = await create({ cwd: '/tmp/made/for it' })
    assert.deepEqual((await inSession(id, 'pwd')).stdout, ['/tmp/made/for it'])
    await inSession(id, `cd /usr; export A="it's \\"here\\"\n\\$PATH"; unset FROM_CREATE; exit 0`)
    const second = await inSession(id, 'pwd; echo "$A"; printenv FROM_CREATE || echo gone; echo oops >&2; exit 5')
    assert.deepEqual(second.stdout, ['/usr', 'it\'s "here"', '$PATH', 'gone'])
    assert.deepEqual(second.stderr, ['oops'])
    assert.equal(second.last?.error?.evalue, '5')
    assert.deepEqual((await inSession(id, 'pwd', { cwd: '/etc' })).stdout, ['/etc'])
    assert.match((await inSession(id, 'sleep 60', { timeout: 200 })).last?.error?.traceback[0] ?? '', /timeout/)
    assert.deepEqual((await inSession(id, 'pwd; echo $#; (exit 4); set -e; false; echo not')).stdout, ['/etc', '0'])
    const other = await serve()
    const response = await fetch(`${other.url}/session/${id}/run`, { method: 'POST', ...json({ command: 'echo $A' }) })
    const texts: (string | undefined)[] = []
    for await (const { type, text } of events(response)) if (type === 'stdout') texts.push(text)
    assert.deepEqual(texts, [`it's "here" $PATH`])
    await other.close()
  })

  it('is another one than the next, and gone once it is deleted', async () => {
    const [first, second] = await Promise.all([create(), create({})])
    await inSession(first, 'export ONLY=here')
    assert.deepEqual((await inSession(second, 'printenv ONLY || echo nothing')).stdout, ['nothing'])
    const running = events(await ok('POST', `/session/${first}/run`, json({ command: 'sleep 1000' })))
    await running.next()
    await ok('DELETE', `/session/${first}`)
    const rest = await Array.fromAsync(running)
    assert.equal(rest.at(-1)?.error?.ename, 'CommandExecError')
    assert.deepEqual(await refused('POST', `/session/${first}/run`, json({ command: 'true' })), [
      404,
      'CONTEXT_NOT_FOUND',
    ])
    assert.deepEqual(await refused('DELETE', `/session/${first}`), [404, 'CONTEXT_NOT_FOUND'])
    assert.deepEqual(await refused('DELETE', '/session/..%2F..%2Fetc'), [404, 'CONTEXT_NOT_FOUND'])
    assert.deepEqual(await refused('POST', `/session/${second}/run`, json({})), [400, 'INVALID_REQUEST_BODY'])
  })

  it('is refused where the shell says more than anybody asked for', async () => {
    const endless = '#!/bin/bash\nwhile :; do echo more; done\n'
    await command(`mv /bin/sh /bin/sh.kept; printf '%s' '${endless}' >/bin/sh; chmod 755 /bin/sh`)
    try {
      assert.deepEqual(await refused('POST', '/session'), [400, 'INVALID_REQUEST_BODY'])
      assert.equal((await command('pgrep -fc "^/bin/bash .*sh$"')).stdout[0], '0')
    } finally {
      await command('mv -f /bin/sh.kept /bin/sh')
    }
  })

  it('is what code in bash runs in; other code needs a kernel', async () => {
    const context = await answerOf<CodeContext>('POST', '/code/context', json({ language: 'bash' }))
    assert.equal(context.language, 'bash')
    await run('/code', { context, code: 'export X=1' })
    assert.deepEqual((await run('/code', { context, code: 'echo $X' })).stdout, ['1'])
    assert.deepEqual((await run('/code', { code: 'echo plain' })).stdout, ['plain'])
    const listed = await answerOf<CodeContext[]>('GET', '/code/contexts?language=bash')
    assert.ok(listed.some(({ id }) => id === context.id))
    assert.deepEqual(await answerOf('GET', `/code/contexts/${context.id}`), context)
    await ok('DELETE', `/code/contexts/${context.id}`)
    assert.deepEqual(await refused('GET', `/code/contexts/${context.id}`), [404, 'CONTEXT_NOT_FOUND'])
    await ok('DELETE', '/code/contexts?language=bash')
    assert.deepEqual(await answerOf<CodeContext[]>('GET', '/code/contexts?language=bash'), [])
    assert.deepEqual(await refused('POST', '/code', json({ code: '1', context: { language: 'python' } })), [
      501,
      'NOT_SUPPORTED',
    ])
    assert.deepEqual(await refused('POST', '/code/context', json({ language: 'python' })), [501, 'NOT_SUPPORTED'])
  })
})

const form = (...files: [object, string][]): RequestInit => {
  const body = new FormData()
  for (const [metadata, content] of files) {
    body.append('metadata', new Blob([JSON.stringify(metadata)], { type: 'application/json' }), 'metadata')
    body.append('file', new Blob([content]), 'a file')
  }
  return { body }
}
describe('files', () => {
  const read = async (path: string, query = '', headers: Record<string, string> = {}) =>
    (await ok('GET', `/files/download?path=${encodeURIComponent(path)}${query}`, { headers })).text()

  it('are uploaded in pairs, with directories, modes and owners', async () => {
    await ok(
      'POST',
      '/files/upload',
      form(
        [{ path: '/srv/up/a b.txt', mode: 640, owner: 'nobody', group: 'nogroup' }, 'first\n'],
        [{ path: '/srv/up/ü.txt', owner: null, group: null, mode: 755 }, 'second'],
      ),
    )
    assert.equal(await read('/srv/up/a b.txt'), 'first\n')
    const infos = await answerOf<Record<string, Info>>('GET', '/files/info?path=/srv/up/a%20b.txt&path=/srv/up')
    const { modified_at = '', created_at = '', ...info } = infos['/srv/up/a b.txt'] ?? {}
    assert.ok(Date.parse(modified_at) > 0 && Date.parse(created_at) > 0)
    assert.deepEqual(info, {
      path: '/srv/up/a b.txt',
      type: 'file',
      size: 6,
      owner: 'nobody',
      group: 'nogroup',
      mode: 640,
    })
    assert.deepEqual([infos['/srv/up']?.type, infos['/srv/up']?.owner], ['directory', 'nobody'])
    assert.deepEqual((await command('stat -c "%a %U" /srv/up/ü.txt')).stdout, ['755 root'])
  })

  it('are streamed: a large one arrives whole', async () => {
    const block = new Uint8Array(1_048_576).map((_, index) => index * 31)
    const boundary = 'of-the-test'
    const body = async function* () {
      yield Buffer.from(
        `--${boundary}\r\nContent-Disposition: form-data; name="metadata"; filename="metadata"\r\nContent-Type: application/json\r\n\r\n${JSON.stringify({ path: '/srv/large', mode: 600 })}\r\n--${boundary}\r\nContent-Disposition: form-data; name="file"; filename="large"\r\nContent-Type: application/octet-stream\r\n\r\n`,
      )
      for (let sent = 0; sent < 48; sent++) yield block
      yield Buffer.from(`\r\n--${boundary}--\r\n`)
    }
    const init = {
      body: ReadableStream.from(body()),
      duplex: 'half',
      headers: { 'content-type': `multipart/form-data; boundary=${boundary}` },
    }
    await ok('POST', '/files/upload', init as RequestInit)
    const response = await ok('GET', '/files/download?path=/srv/large')
    assert.equal(response.headers.get('content-length'), String(48 * block.length))
    let at = 0
    for await (const chunk of response.body ?? []) {
      const want = Buffer.alloc(chunk.length, undefined)
      for (let i = 0; i < chunk.length; i += 65_537) assert.equal(chunk[i], block[(at + i) % block.length])
      at += want.length
    }
    assert.equal(at, 48 * block.length)
  })

  it('that cannot be uploaded are refused, and say why', async () => {
    const upload = (init: RequestInit) => refused('POST', '/files/upload', init)
    assert.deepEqual(await upload(json({})), [400, 'INVALID_FILE_CONTENT'])
    assert.deepEqual(await upload(form([{ mode: 755 }, 'x'])), [400, 'INVALID_FILE_METADATA'])
    assert.deepEqual(await upload(form([{ path: '/srv/x', mode: 999 }, 'x'])), [400, 'INVALID_FILE_METADATA'])
    const alone = new FormData()
    alone.append('file', new Blob(['x']), 'x')
    assert.deepEqual(await upload({ body: alone }), [400, 'INVALID_FILE_METADATA'])
    const empty = new FormData()
    empty.append('metadata', new Blob(['{"path":"/srv/x"}']), 'metadata')
    assert.deepEqual(await upload({ body: empty }), [400, 'INVALID_FILE_CONTENT'])
    const cut = {
      body: '--b\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n{"path":"/srv/x"}\r\n--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nhalf',
      headers: { 'content-type': 'multipart/form-data; boundary=b' },
    }
    assert.deepEqual(await upload(cut), [400, 'INVALID_FILE_CONTENT'])
    assert.deepEqual(await refused('GET', '/files/info?path=/srv/x'), [404, 'FILE_NOT_FOUND'])
  })

  it('are downloaded whole, by bytes and by lines', async () => {
    await command('seq 1 10 > /srv/ten; : > /srv/none; printf "a\\nb" > /srv/cut')
    assert.equal(await read('/srv/ten', '&offset=3&limit=2'), '3\n4\n')
    assert.equal(await read('/srv/ten', '&offset=9'), '9\n10\n')
    assert.equal(await read('/srv/ten', '&limit=1'), '1\n')
    assert.equal(await read('/srv/ten', '&offset=11'), '')
    assert.equal(await read('/srv/cut', '&offset=2&limit=5'), 'b')
    assert.equal(await read('/srv/none'), '')
    const part = await ok('GET', '/files/download?path=/srv/ten', { headers: { range: 'bytes=2-4' } })
    assert.deepEqual([part.status, part.headers.get('content-range'), await part.text()], [206, 'bytes 2-4/21', '2\n3'])
    assert.equal(await read('/srv/ten', '', { range: 'bytes=-3' }), '10\n')
    assert.equal(await read('/srv/ten', '', { range: 'bytes=18-' }), '10\n')
    assert.match(await read('/proc/sys/kernel/ostype'), /^Linux/)
    const refusal = (query: string, headers: Record<string, string> = {}) =>
      refused('GET', `/files/download?path=/srv/ten${query}`, { headers })
    assert.deepEqual(await refusal('', { range: 'bytes=21-' }), [416, 'INVALID_RANGE'])
    assert.deepEqual(await refusal('&offset=1', { range: 'bytes=0-1' }), [400, 'INVALID_REQUEST_BODY'])
    assert.deepEqual(await refusal('&offset=0'), [400, 'MISSING_QUERY'])
    assert.deepEqual(await refused('GET', '/files/download?path=/srv/nowhere'), [404, 'FILE_NOT_FOUND'])
    assert.deepEqual(await refused('GET', '/files/download'), [400, 'MISSING_QUERY'])
  })

  it('are moved, permitted, replaced in, searched and deleted', async () => {
    await command(
      'mkdir -p /srv/m/sub /srv/m/empty; cd /srv/m; echo "a.b a.b c" > one.txt; printf "\\377a.b" > sub/two.txt; echo x > sub/three.md; ln -s one.txt link; chmod 604 one.txt',
    )
    const found = async (query: string) =>
      (await answerOf<Info[]>('GET', `/files/search?path=/srv/m${query}`)).map(({ path }) => path).sort()
    assert.deepEqual(await found(''), ['/srv/m/link', '/srv/m/one.txt', '/srv/m/sub/three.md', '/srv/m/sub/two.txt'])
    assert.deepEqual(await found('&pattern=*.txt'), ['/srv/m/one.txt', '/srv/m/sub/two.txt'])
    assert.deepEqual(await found('&pattern=sub/**'), ['/srv/m/sub/three.md', '/srv/m/sub/two.txt'])
    assert.deepEqual(await found('&pattern=nothing*'), [])
    const items = { '/srv/m/one.txt': { old: 'a.b', new: 'ü' }, '/srv/m/sub/two.txt': { old: 'a.b', new: 'z' } }
    const counts = await answerOf('POST', '/files/replace?verbose=true', json(items))
    assert.deepEqual(counts, { '/srv/m/one.txt': { replacedCount: 2 }, '/srv/m/sub/two.txt': { replacedCount: 1 } })
    assert.equal(await (await ok('POST', '/files/replace', json(items))).text(), '')
    assert.deepEqual(
      (await command('cat /srv/m/one.txt; stat -c %a /srv/m/one.txt; od -An -tx1 /srv/m/sub/two.txt')).stdout,
      ['ü ü c', '604', ' ff 7a'],
    )
    await ok('POST', '/files/permissions', json({ '/srv/m/one.txt': { mode: 700, group: 'nogroup' } }))
    assert.deepEqual((await command('stat -c "%a %U %G" /srv/m/one.txt')).stdout, ['700 root nogroup'])
    await ok('POST', '/files/mv', json([{ src: '/srv/m/one.txt', dest: '/srv/m/empty/moved.txt' }]))
    assert.equal(await read('/srv/m/empty/moved.txt'), 'ü ü c\n')
    const move = (src: string, dest: string) => refused('POST', '/files/mv', json([{ src, dest }]))
    assert.deepEqual(await move('/srv/m/gone', '/srv/m/x'), [404, 'FILE_NOT_FOUND'])
    assert.deepEqual(await move('/srv/m/link', '/srv/none such/x'), [404, 'FILE_NOT_FOUND'])
    assert.deepEqual(await move('/srv/m/link', '/srv/m/sub/three.md'), [400, 'INVALID_REQUEST_BODY'])
    assert.deepEqual(await refused('DELETE', '/files?path=/srv/m/sub&path=/srv/m/link'), [400, 'INVALID_REQUEST_BODY'])
    await ok('DELETE', '/files?path=/srv/m/link&path=/srv/m/never')
    assert.deepEqual(await refused('GET', '/files/info?path=/srv/m/link'), [404, 'FILE_NOT_FOUND'])
    assert.deepEqual(await refused('POST', '/files/replace', json({ '/srv/m/sub/two.txt': { old: '', new: 'x' } })), [
      400,
      'INVALID_REQUEST_BODY',
    ])
    assert.deepEqual(await refused('POST', '/files/replace', json({ '/srv/m/gone': { old: 'a', new: 'x' } })), [
      404,
      'FILE_NOT_FOUND',
    ])
  })

  it('that cannot be written are refused as soon as that is known, whatever else the client would send', async () => {
    await command('mkdir -p /srv/full; echo x > /srv/full/file')
    const part = (name: string, content: string) =>
      `--b\r\nContent-Disposition: form-data; name="${name}"; filename="f"\r\n\r\n${content}`
    const rest = Buffer.alloc(4_000_000, 'x')
    const refusedEarly = async (start: string): Promise<string> => {
      const socket = connect(Number(new URL(served.url).port), '127.0.0.1')
      try {
        socket.write(
          `POST /files/upload HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: ${start.length + rest.length}\r\n\r\n${start}`,
        )
        const [answer] = await once(socket, 'data', { signal: AbortSignal.timeout(10_000) })
        // Who goes on all the same is heard to the end, and the connection serves the next request.
        socket.write(rest)
        socket.end('GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
        assert.match(await text(socket), /^HTTP\/1\.1 200 /)
        return String(answer)
      } finally {
        socket.destroy()
      }
    }
    const metadata = (path: string) => `${part('metadata', JSON.stringify({ path }))}\r\n`
    const begun = part('file', 'the beginning')
    assert.match(await refusedEarly(metadata('/srv/full/file/below') + begun), /^HTTP\/1\.1 4\d\d [\s\S]*"code"/)
    assert.match(await refusedEarly(metadata('/srv/full') + begun), /^HTTP\/1\.1 400 /)
    assert.match(
      await refusedEarly(`${part('metadata', '{}')}\r\n${begun}`),
      /^HTTP\/1\.1 400 [\s\S]*INVALID_FILE_METADATA/,
    )
    assert.match(await refusedEarly(begun), /^HTTP\/1\.1 400 [\s\S]*INVALID_FILE_METADATA/)
    assert.match(await refusedEarly(part('other', 'x')), /^HTTP\/1\.1 400 [\s\S]*INVALID_FILE_CONTENT/)
  })

  it('can be touched with the rights of another user', async () => {
    await command('mkdir -m 700 /srv/private; echo secret > /srv/private/file; mkdir -m 777 /srv/open')
    const as = '/v1/filesystem/65534/65534'
    assert.notEqual((await call('GET', `${as}/files/download?path=/srv/private/file`)).status, 200)
    await ok('POST', `${as}/files/upload`, form([{ path: '/srv/open/mine' }, 'x']))
    assert.deepEqual((await command('stat -c %U /srv/open/mine')).stdout, ['nobody'])
    assert.equal((await answerOf<Info[]>('GET', `${as}/directories/list?path=/srv/open`)).length, 1)
  })
})

describe('whose rights files are touched with', () => {
  it('those of the user that commands are run by', async () => {
    const other = await serve({ user: async () => 'nobody' })
    try {
      const init = form([{ path: '/tmp/of-the-user' }, 'x'])
      assert.equal((await fetch(`${other.url}/files/upload`, { method: 'POST', ...init })).status, 200)
      assert.deepEqual((await command('stat -c %U /tmp/of-the-user')).stdout, ['nobody'])
      assert.equal((await fetch(`${other.url}/files/download?path=/etc/shadow`)).status, 400)
    } finally {
      await other.close()
    }
  })
})

describe('directories', () => {
  it('are made with their parents, listed in order, and deleted with all they hold', async () => {
    await ok(
      'POST',
      '/directories',
      json({ '/srv/d/deep/er': { mode: 750, owner: 'nobody', group: 'nogroup' }, '/srv/d/deep-er': { mode: 777 } }),
    )
    assert.deepEqual((await command('stat -c "%a %U" /srv/d/deep/er /srv/d/deep /srv/d/deep-er')).stdout, [
      '750 nobody',
      '755 nobody',
      '777 root',
    ])
    await ok('POST', '/directories', json({ '/srv/d/deep/er': { mode: 700 } }))
    assert.deepEqual(
      (await command('stat -c %a /srv/d/deep/er; touch /srv/d/deep/er/file; ln -s deep /srv/d/to; mkfifo /srv/d/pipe'))
        .stdout,
      ['750'],
    )
    const list = async (query: string) =>
      (await answerOf<Info[]>('GET', `/directories/list?path=/srv/d${query}`)).map(
        ({ path, type }) => `${path.slice(7)} ${type}`,
      )
    assert.deepEqual(await list(''), ['deep directory', 'deep-er directory', 'pipe other', 'to symlink'])
    assert.deepEqual(await list('&depth=3'), [
      ...['deep directory', 'deep/er directory', 'deep/er/file file'],
      ...['deep-er directory', 'pipe other', 'to symlink'],
    ])
    assert.deepEqual(await list('&depth=0'), [])
    const refusal = (path: string) => refused('GET', `/directories/list?path=${path}`)
    assert.deepEqual(await refusal('/srv/d/to'), [400, 'INVALID_REQUEST_BODY'])
    assert.deepEqual(await refusal('/srv/d/deep/er/file'), [400, 'INVALID_REQUEST_BODY'])
    assert.deepEqual(await refusal('/srv/nowhere'), [404, 'FILE_NOT_FOUND'])
    await ok('DELETE', '/directories?path=/srv/d&path=/srv/never')
    assert.deepEqual(await refusal('/srv/d'), [404, 'FILE_NOT_FOUND'])
  })
})

describe('metrics', () => {
  it('say what is there and what is used', async () => {
    const metrics = await answerOf<Record<'cpu_count' | 'cpu_used_pct' | 'mem_total_mib' | 'mem_used_mib', number>>(
      'GET',
      '/metrics',
    )
    assert.deepEqual(Object.keys(metrics).sort(), [
      'cpu_count',
      'cpu_used_pct',
      'mem_total_mib',
      'mem_used_mib',
      'timestamp',
    ])
    assert.ok(metrics.cpu_count >= 1 && metrics.mem_total_mib > metrics.mem_used_mib && metrics.mem_used_mib > 0)
    assert.ok(metrics.cpu_used_pct >= 0 && metrics.cpu_used_pct <= 100)
  })

  it('go on as long as they are watched', async () => {
    const leaving = new AbortController()
    const response = await ok('GET', '/metrics/watch', { signal: leaving.signal })
    let seen = 0
    for await (const event of events(response)) {
      assert.ok('cpu_used_pct' in event)
      if (++seen === 2) break
    }
    leaving.abort()
  })
})

describe('who may call', () => {
  it('whoever has the token of a secured sandbox', async () => {
    const secured = await serve({ token: async () => 'the token' })
    try {
      const ping = async (headers: Record<string, string>) => (await fetch(`${secured.url}/ping`, { headers })).status
      assert.equal(await ping({}), 401)
      assert.equal(await ping({ 'X-EXECD-ACCESS-TOKEN': 'a guess' }), 401)
      assert.equal(await ping({ 'X-EXECD-ACCESS-TOKEN': 'the token' }), 200)
    } finally {
      await secured.close()
    }
    assert.equal((await ok('GET', '/ping')).status, 200)
  })

  it('of a sandbox that is there, and of what execd has', async () => {
    const elsewhere = (path: string, init: RequestInit = {}) =>
      refused('POST', path, { ...init, headers: { 'x-sandbox': 'nosuchsandbox', 'content-type': 'application/json' } })
    assert.deepEqual(await elsewhere('/command', json({ command: 'true' })), [502, 'SANDBOX_NOT_FOUND'])
    assert.deepEqual(await refused('GET', '/nothing'), [404, 'NOT_FOUND'])
    assert.deepEqual(await refused('POST', '/v1/isolated/session', json({})), [501, 'NOT_SUPPORTED'])
    assert.equal((await answerOf<{ available: boolean }>('GET', '/v1/isolated/capabilities')).available, false)
    assert.deepEqual(
      await refused('POST', '/command', { body: '{', headers: { 'content-type': 'application/json' } }),
      [400, 'INVALID_REQUEST_BODY'],
    )
  })
})
