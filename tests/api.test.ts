import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { type IncomingMessage, request } from 'node:http'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { buffer, json as readJson, text } from 'node:stream/consumers'
import { after, before, describe, it } from 'node:test'
import type { ExecInfo, FileInfo, ForkResult, WireError, WireSandbox, WireSnapshot } from '@icebox/model'
import { BASE_IMAGE } from '@icebox/node'
import { openServer, type Server } from '@icebox/server'
import { withinSpace } from '@icebox/snapshot'
import { KEY, openParts, type Parts } from './faults/parts.ts'

/** The API over a whole Icebox, called as any program would call it. */

const WAIT = { prefer: 'wait=120' }

let directory: string
let parts: Parts
let server: Server
const log: Record<string, unknown>[] = []

const serve = () =>
  openServer({
    control: parts.control,
    listen: { host: '127.0.0.1', port: 0 },
    info: { version: 'test', driver: parts.node.driver.name, dataDirectory: parts.data.path, pid: process.pid },
    temporaryDirectory: parts.data.tmp,
    withinSpace,
    log: { write: (line) => log.push(JSON.parse(line)) },
    onShutdown: () => undefined,
  })

interface Call {
  headers?: Record<string, string>
  json?: unknown
  body?: Uint8Array | string
  server?: Server
}

/** The answer's head; its body is for the caller to read. */
async function send(method: string, path: string, call: Call = {}): Promise<IncomingMessage> {
  const body = call.json === undefined ? call.body : JSON.stringify(call.json)
  const outgoing = request((call.server ?? server).url + path, {
    method,
    headers: {
      'x-api-key': KEY,
      ...(call.json === undefined ? {} : { 'content-type': 'application/json' }),
      ...call.headers,
    },
  })
  outgoing.end(body)
  const [response] = await once(outgoing, 'response')
  return response
}

/** The JSON answer of a call that must go well. */
async function ok<T>(method: string, path: string, call: Call = {}): Promise<T> {
  const response = await send(method, path, call)
  const content = await text(response)
  assert.ok((response.statusCode ?? 500) < 300, `${method} ${path}: ${response.statusCode} ${content}`)
  return content === '' ? (undefined as T) : JSON.parse(content)
}

async function refused(method: string, path: string, call: Call = {}): Promise<WireError & { status: number }> {
  const response = await send(method, path, call)
  const error = (await readJson(response)) as WireError
  assert.ok((response.statusCode ?? 0) >= 400, `${method} ${path} went well`)
  return { ...error, status: response.statusCode ?? 0 }
}

interface Line {
  type: string
  exec?: ExecInfo
  attachment?: string
  stream?: string
  offset?: number
  data?: string
  exit?: object
  error?: WireError
  path?: string
}
async function* linesOf(response: IncomingMessage): AsyncGenerator<Line> {
  for await (const line of createInterface({ input: response })) yield JSON.parse(line)
}

/** Reads an exec's stream to its end. */
async function outcome(
  response: IncomingMessage,
): Promise<{ exec: ExecInfo; stdout: string; stderr: string; last: Line }> {
  assert.equal(response.statusCode, 200)
  const lines = await Array.fromAsync(linesOf(response))
  const { exec } = lines[0] ?? {}
  const last = lines.at(-1)
  assert.ok(exec !== undefined && last !== undefined)
  const output = (name: string) =>
    Buffer.concat(
      lines.filter(({ stream }) => stream === name).map(({ data = '' }) => Buffer.from(data, 'base64')),
    ).toString()
  return { exec, stdout: output('stdout'), stderr: output('stderr'), last }
}

const exec = (sandbox: string, argv: string[], more: object = {}, query = ''): Promise<IncomingMessage> =>
  send('POST', `/v1/sandboxes/${sandbox}/execs${query}`, { json: { argv, ...more } })
const sh = async (sandbox: string, script: string) => outcome(await exec(sandbox, ['sh', '-c', script]))

const create = (body: object = { template: 'base' }): Promise<WireSandbox> =>
  ok('POST', '/v1/sandboxes', { json: body, headers: WAIT })
const remove = (sandbox: { id: string }): Promise<void> =>
  ok('DELETE', `/v1/sandboxes/${sandbox.id}`, { headers: WAIT })

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'icebox-api-'))
  parts = await openParts(directory)
  server = await serve()
})
after(async () => {
  await server?.close(AbortSignal.timeout(10_000))
  await parts?.control.close('kill', AbortSignal.timeout(60_000))
  await parts?.data.close()
  await rm(directory, { recursive: true, force: true })
})

describe('templates and images', () => {
  it('are built with progress, whose last line has the result', async () => {
    const response = await send('POST', '/v1/templates', {
      json: { name: 'base', image: BASE_IMAGE, size: { memoryMiB: 256, diskMiB: 512 } },
      headers: { accept: 'application/x-ndjson' },
    })
    assert.equal(response.statusCode, 200)
    assert.equal(response.headers['content-type'], 'application/x-ndjson')
    const lines = (await text(response))
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line))
    assert.ok(
      lines.length > 1 && lines.slice(0, -1).every(({ phase }) => typeof phase === 'string'),
      JSON.stringify(lines),
    )
    assert.equal(lines.at(-1).result?.status.state, 'Ready', JSON.stringify(lines.at(-1)))
  })

  it('are listed and shown, images by their URL-encoded reference', async () => {
    const templates = await ok<{ items: { id: string }[] }>('GET', '/v1/templates')
    assert.deepEqual(
      templates.items.map(({ id }) => id),
      ['base'],
    )
    const image = await ok<{ id: string; digest: string }>('GET', `/v1/images/${encodeURIComponent(BASE_IMAGE)}`)
    for (const ref of [image.id, image.id.slice(0, 12), image.digest])
      assert.equal((await ok<{ id: string }>('GET', `/v1/images/${encodeURIComponent(ref)}`)).id, image.id)
  })

  it('refuse what cannot be', async () => {
    assert.equal(
      (await refused('POST', '/v1/templates', { json: { name: 'base', image: BASE_IMAGE } })).code,
      'AlreadyExists',
    )
    assert.equal((await refused('GET', '/v1/templates/none')).code, 'NotFound')
    assert.equal((await refused('DELETE', `/v1/images/${encodeURIComponent(BASE_IMAGE)}`)).code, 'InUse')
    const headers = { accept: 'application/x-ndjson' }
    const response = await send('POST', '/v1/images', { json: { reference: 'dir:/does/not/exist' }, headers })
    const content = await text(response)
    assert.match(content, /"code":"/, `${response.statusCode} ${content}`)
  })
})

describe('the lifecycle', () => {
  it('accepts at once and settles by itself', async () => {
    const response = await send('POST', '/v1/sandboxes', {
      json: { template: 'base', name: 'quick', metadata: { k: 'v' } },
    })
    assert.equal(response.statusCode, 202)
    assert.equal(response.headers['preference-applied'], undefined)
    const accepted = (await readJson(response)) as WireSandbox
    assert.equal(response.headers.location, `/v1/sandboxes/${accepted.id}`)
    assert.equal(accepted.status.state, 'Pending')
    assert.equal(accepted.name, 'quick')
    let sandbox = accepted
    while (sandbox.status.state === 'Pending') sandbox = await ok('GET', `/v1/sandboxes/${accepted.id.slice(0, 10)}`)
    assert.equal(sandbox.status.state, 'Running', String(sandbox.status.message))
    assert.equal((await ok<WireSandbox>('GET', '/v1/sandboxes/quick')).id, accepted.id)
    const logged = log.find(({ operation, resource }) => operation === 'createSandbox' && resource === accepted.id)
    assert.equal(logged?.status, 202)
    const gone = await send('DELETE', '/v1/sandboxes/quick', { headers: WAIT })
    assert.equal(gone.statusCode, 204)
    assert.equal(gone.headers['preference-applied'], 'wait=120')
    assert.equal((await refused('GET', `/v1/sandboxes/${accepted.id}`)).code, 'NotFound')
  })

  it('waits as long as preferred, and tells how things are when that was too short', async () => {
    const response = await send('POST', '/v1/sandboxes', { json: { template: 'base' }, headers: { prefer: 'wait=0' } })
    assert.equal(response.headers['preference-applied'], 'wait=0')
    const early = (await readJson(response)) as WireSandbox
    assert.ok(['Pending', 'Running'].includes(early.status.state))
    await remove(early)
    const settled = await create()
    assert.equal(settled.status.state, 'Running')
    assert.equal(typeof settled.restoreMs, 'number')
    await remove(settled)
  })

  it('pauses and resumes under the same id, joining equal requests; a paused one does no work', async () => {
    const { id } = await create()
    await sh(id, 'echo kept > /dev/shm/kept')
    const paused = await Promise.all(
      [1, 2, 3].map(() => ok<WireSandbox>('POST', `/v1/sandboxes/${id}/pause`, { headers: WAIT })),
    )
    for (const sandbox of paused) assert.equal(sandbox.status.state, 'Paused')
    for (const [method, path] of [
      ['POST', `/v1/sandboxes/${id}/execs`],
      ['GET', `/v1/sandboxes/${id}/files/content?path=/etc/hostname`],
      ['GET', `/v1/sandboxes/${id}/stats`],
    ] as const) {
      const refusal = await refused(method, path, method === 'POST' ? { json: { argv: ['true'] } } : {})
      assert.deepEqual([refusal.status, refusal.code], [409, 'InvalidState'])
    }
    const resumed = await ok<WireSandbox>('POST', `/v1/sandboxes/${id}/resume`, { headers: WAIT })
    assert.deepEqual([resumed.id, resumed.status.state], [id, 'Running'])
    assert.equal((await sh(id, 'cat /dev/shm/kept')).stdout, 'kept\n')
    await remove({ id })
  })

  it('answers a failure that is waited for with the error', async () => {
    const { id } = await create()
    const refusal = await refused('POST', `/v1/sandboxes/${id}/rollback`, {
      json: { snapshotId: 'none' },
      headers: WAIT,
    })
    assert.equal(refusal.code, 'NotFound')
    assert.equal((await refused('POST', `/v1/sandboxes/${id}/resume/`, {})).code, 'NotFound')
    assert.equal(
      (await refused('POST', '/v1/sandboxes', { json: { template: 'none' }, headers: WAIT })).code,
      'NotFound',
    )
    await remove({ id })
  })

  it('changes metadata by merge patch and the expiration', async () => {
    const { id } = await create({ template: 'base', metadata: { a: '1', b: '2' }, timeout: 3600 })
    const patched = await ok<WireSandbox>('PATCH', `/v1/sandboxes/${id}/metadata`, { json: { a: null, c: '3' } })
    assert.deepEqual(patched.metadata, { b: '2', c: '3' })
    const at = new Date(Date.now() + 7_200_000).toISOString()
    assert.deepEqual(await ok('POST', `/v1/sandboxes/${id}/renew-expiration`, { json: { expiresAt: at } }), {
      expiresAt: at,
    })
    assert.deepEqual(await ok('POST', `/v1/sandboxes/${id}/renew-expiration`, { json: { timeout: null } }), {})
    assert.equal((await ok<WireSandbox>('GET', `/v1/sandboxes/${id}`)).expiresAt, undefined)
    await remove({ id })
  })

  it('lists by state and metadata, a page at a time, whatever they were made from', async () => {
    const first = await create({ template: 'base', metadata: { set: 'list', n: '1' } })
    const snapshot = await ok<WireSnapshot>('POST', `/v1/sandboxes/${first.id}/snapshots`, { headers: WAIT })
    const second = await create({ snapshotId: snapshot.id, metadata: { set: 'list', n: '2' } })
    const list = async (query: string) => {
      const { items, pagination } = await ok<{ items: WireSandbox[]; pagination: object }>(
        'GET',
        `/v1/sandboxes?${query}`,
      )
      return { ids: items.map(({ id }) => id), pagination }
    }
    const set = `metadata=${encodeURIComponent('set=list')}`
    assert.deepEqual((await list(set)).ids, [second.id, first.id])
    assert.deepEqual((await list(`metadata=${encodeURIComponent('set=list&n=1')}`)).ids, [first.id])
    assert.deepEqual(await list(`${set}&page=2&pageSize=1`), {
      ids: [first.id],
      pagination: { page: 2, pageSize: 1, totalItems: 2, totalPages: 2, hasNextPage: false },
    })
    await ok('POST', `/v1/sandboxes/${first.id}/pause`, { headers: WAIT })
    assert.deepEqual((await list(`${set}&state=Paused`)).ids, [first.id])
    assert.deepEqual((await list(`${set}&state=Paused&state=Running`)).ids, [second.id, first.id])
    assert.deepEqual((await list(`${set}&state=Terminated`)).ids, [])
    await remove(first)
    await remove(second)
    await ok('DELETE', `/v1/snapshots/${snapshot.id}`, { headers: WAIT })
  })

  it('forks: each child goes on from the same point', async () => {
    const { id } = await create()
    await sh(id, 'echo same > /dev/shm/x')
    const children = await ok<ForkResult[]>('POST', `/v1/sandboxes/${id}/fork`, { json: { count: 2 } })
    assert.equal(children.length, 2)
    for (const child of children) {
      assert.ok('sandbox' in child, JSON.stringify(child))
      assert.notEqual(child.sandbox.id, id)
      assert.equal((await sh(child.sandbox.id, 'cat /dev/shm/x')).stdout, 'same\n')
      await remove(child.sandbox)
    }
    await remove({ id })
  })
})

describe('snapshots', () => {
  it('are taken, rolled back to, verified, exported, imported, restored and deleted', async () => {
    const { id } = await create()
    await sh(id, 'echo before > /root/x')
    const accepted = await send('POST', `/v1/sandboxes/${id}/snapshots`, { json: { name: 'point' }, headers: WAIT })
    assert.equal(accepted.statusCode, 202)
    const snapshot = (await readJson(accepted)) as WireSnapshot
    assert.equal(accepted.headers.location, `/v1/snapshots/${snapshot.id}`)
    assert.deepEqual([snapshot.status.state, snapshot.name, snapshot.sandboxId], ['Ready', 'point', id])
    await sh(id, 'echo after > /root/x')
    await ok('POST', `/v1/sandboxes/${id}/rollback`, { json: { snapshotId: 'point' }, headers: WAIT })
    assert.equal((await sh(id, 'cat /root/x')).stdout, 'before\n')

    const listed = await ok<{ items: WireSnapshot[] }>('GET', `/v1/snapshots?sandboxId=${id}&state=Ready`)
    assert.deepEqual(
      listed.items.map((item) => item.id),
      [snapshot.id],
    )
    const all = await ok<{ items: WireSnapshot[] }>('GET', '/v1/snapshots?hidden=true')
    assert.ok(all.items.length > 1, 'the template’s is there too')
    assert.deepEqual(await ok('POST', `/v1/snapshots/${snapshot.id}/verify`), { faults: [] })

    const exported = await send('POST', `/v1/snapshots/${snapshot.id}/export`)
    assert.equal(exported.headers['content-type'], 'application/x-tar')
    const tar = await buffer(exported)
    assert.equal(String(tar.length), exported.headers['content-length'])
    const imported = await send('POST', '/v1/snapshots/import?name=copy', {
      body: tar,
      headers: { 'content-type': 'application/x-tar' },
    })
    const copy = (await readJson(imported)) as WireSnapshot
    assert.equal(imported.statusCode, 201, JSON.stringify(copy))
    assert.equal(copy.name, 'copy')
    assert.notEqual(copy.id, snapshot.id)
    const child = await create({ snapshotId: 'copy' })
    assert.equal((await sh(child.id, 'cat /root/x')).stdout, 'before\n')
    await remove(child)
    await remove({ id })
    for (const each of [copy, snapshot]) await ok('DELETE', `/v1/snapshots/${each.id}`, { headers: WAIT })
    assert.equal((await refused('GET', `/v1/snapshots/${snapshot.id}`)).code, 'NotFound')
    assert.deepEqual(await readdir(parts.data.tmp), [])
  })

  it('that are no snapshots are not imported, and leave nothing', async () => {
    const refusal = await refused('POST', '/v1/snapshots/import', { body: randomBytes(100_000) })
    assert.ok(refusal.status < 500, JSON.stringify(refusal))
    assert.deepEqual(await readdir(parts.data.tmp), [])
  })

  it('that say they are larger than the disk are refused before they are read', async () => {
    const upload = request(`${server.url}/v1/snapshots/import`, {
      method: 'POST',
      headers: { 'x-api-key': KEY, 'content-length': 2 ** 50 },
    })
    // The rest never comes, and the connection is cut by either side.
    upload.on('error', () => {})
    upload.flushHeaders()
    const [response] = await once(upload, 'response')
    const refusal = (await readJson(response)) as WireError
    upload.destroy()
    assert.deepEqual([response.statusCode, refusal.code], [507, 'NoSpace'])
    assert.match(refusal.message, /the upload needs \d+ MiB/)
    assert.deepEqual(await readdir(parts.data.tmp), [])
  })
})

describe('in a running sandbox', () => {
  let id: string
  before(async () => {
    id = (await create()).id
  })
  after(async () => {
    await remove({ id })
  })
  const at = (path: string) => `/v1/sandboxes/${id}${path}`
  const stdin = (process: string, query: string, body: string) =>
    ok('POST', at(`/execs/${process}/stdin?${query}`), {
      body,
      headers: { 'content-type': 'application/octet-stream' },
    })

  describe('execs', () => {
    it('stream their output and end with the exit', async () => {
      const {
        exec: info,
        stdout,
        stderr,
        last,
      } = await outcome(
        await exec(id, ['sh', '-c', 'echo "$1"; echo err >&2; exit 3', 'sh', 'a  $b'], {
          env: { b: 'x' },
          cwd: '/tmp',
          tag: 't',
        }),
      )
      assert.deepEqual([stdout, stderr], ['a  $b\n', 'err\n'])
      assert.deepEqual(last, { type: 'exit', exit: { exitCode: 3, timedOut: false } })
      assert.deepEqual([info.cwd, info.tag, info.pty], ['/tmp', 't', false])
    })

    it('that cannot be started are an error before the stream', async () => {
      const refusal = await refused('POST', at('/execs'), { json: { argv: ['/no/such/program'] } })
      assert.equal(refusal.code, 'NotFound')
      assert.equal((await refused('POST', at('/execs'), { json: { argv: ['true'], user: 'nobody-here' } })).status, 404)
      assert.equal((await refused('GET', at('/execs/999999/output'))).code, 'NotFound')
      assert.equal(
        (await refused('POST', at('/execs/999999/signal'), { json: { signal: 'SIGTERM' } })).code,
        'NotFound',
      )
    })

    it('outlive their client, which attaches again where it was', async () => {
      const response = await exec(id, [
        'sh',
        '-c',
        'i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; sleep 1; echo end',
      ])
      let process: string | undefined
      const head: Buffer[] = []
      for await (const line of linesOf(response)) {
        process ??= line.exec?.id
        if (line.data !== undefined) head.push(Buffer.from(line.data, 'base64'))
        if (head.length > 0) break
      }
      response.destroy()
      const from = Buffer.concat(head).length
      assert.ok(process !== undefined && from > 0)
      const rest = await outcome(await send('GET', at(`/execs/${process}/output?stdoutFrom=${from}`)))
      assert.deepEqual(rest.last.exit, { exitCode: 0, timedOut: false })
      const whole = Buffer.concat([...head, Buffer.from(rest.stdout)]).toString()
      assert.equal(whole, `${Array.from({ length: 20_000 }, (_, i) => `line ${i}\n`).join('')}end\n`)
      const execs = await ok<ExecInfo[]>('GET', at('/execs'))
      assert.deepEqual(execs.find((each) => each.id === process)?.exit, { exitCode: 0, timedOut: false })
    })

    it('keep what was sent until it is acknowledged, when the client asks for that', async () => {
      const argv = ['head', '-c', '40000', '/dev/zero']
      const response = await exec(id, argv, { keepBytes: 4096, overflow: 'block' }, '?acknowledge=true')
      let process = ''
      let attachment = ''
      for await (const line of linesOf(response)) {
        process ||= line.exec?.id ?? ''
        attachment ||= line.attachment ?? ''
        if (line.data !== undefined) break
      }
      await ok('POST', at(`/execs/${process}/acknowledge`), { json: { attachment, stdout: 100 } })
      response.destroy()
      let length = 0
      for await (const line of linesOf(await send('GET', at(`/execs/${process}/output?stdoutFrom=0&acknowledge=1`)))) {
        attachment = line.attachment ?? attachment
        if (line.data === undefined) continue
        assert.equal(line.offset, length)
        length += Buffer.from(line.data, 'base64').length
        // After the last of it the stream ends by itself, and then there is nothing to acknowledge.
        const answer = await send('POST', at(`/execs/${process}/acknowledge`), { json: { attachment, stdout: length } })
        assert.ok(answer.resume().statusCode === 204 || length === 40_000)
      }
      assert.equal(length, 40_000)
      const late = await refused('POST', at(`/execs/${process}/acknowledge`), { json: { attachment, stdout: length } })
      assert.equal(late.code, 'NotFound')
    })

    it('are only started with detach', async () => {
      const response = await exec(id, ['sh', '-c', 'echo quiet'], {}, '?detach=true')
      assert.equal(response.statusCode, 201)
      const info = (await readJson(response)) as ExecInfo
      assert.equal((await outcome(await send('GET', at(`/execs/${info.id}/output`)))).stdout, 'quiet\n')
    })

    it('take stdin by offset, so that sending again doubles nothing, attached or not', async () => {
      for (const detached of [false, true]) {
        const response = await exec(id, ['cat'], { stdin: true }, detached ? '?detach=true' : '')
        const stream = detached ? undefined : linesOf(response)
        const info = detached ? ((await readJson(response)) as ExecInfo) : (await stream?.next())?.value?.exec
        await stdin(info.id, 'offset=0', 'hello')
        await stdin(info.id, 'offset=0', 'hello')
        await stdin(info.id, 'offset=3', 'lo, wor')
        await stdin(info.id, '', 'ld')
        await stdin(info.id, 'close=true', '')
        if (!detached) response.destroy()
        const { stdout, last } = await outcome(await send('GET', at(`/execs/${info.id}/output`)))
        assert.equal(stdout, 'hello, world')
        assert.deepEqual(last.exit, { exitCode: 0, timedOut: false })
      }
    })

    it('take stdin to its end when the client leaves through whose stream it went', async () => {
      const script = 'until [ -e /tmp/read ]; do sleep 0.05; done; wc -c'
      const viewer = await exec(id, ['sh', '-c', script], { stdin: true }, '?acknowledge=true')
      const { value: first } = await linesOf(viewer).next()
      const process = first?.exec?.id ?? ''
      const writing = stdin(process, 'offset=0&close=true', 'x'.repeat(1_000_000))
      const taken = async () => (await ok<ExecInfo[]>('GET', at('/execs'))).find((each) => each.id === process)
      while (((await taken())?.stdinBytes ?? 0) === 0);
      viewer.destroy()
      const json = { attachment: first?.attachment, stdout: 0 }
      while ((await send('POST', at(`/execs/${process}/acknowledge`), { json })).resume().statusCode !== 404);
      await sh(id, 'touch /tmp/read')
      await writing
      assert.equal((await outcome(await send('GET', at(`/execs/${process}/output`)))).stdout, '1000000\n')
    })

    it('have terminals with a size, and take signals, attached or not', async () => {
      for (const detached of [false, true]) {
        const script = 'trap "stty size" WINCH; stty size; echo ready; while :; do sleep 0.1; done'
        const response = await exec(
          id,
          ['sh', '-c', script],
          { pty: { cols: 80, rows: 24 } },
          detached ? '?detach=true' : '',
        )
        let info: ExecInfo | undefined
        if (detached) info = (await readJson(response)) as ExecInfo
        const stream = linesOf(detached ? await send('GET', at(`/execs/${info?.id}/output`)) : response)
        let seen = ''
        const until = async (pattern: RegExp) => {
          while (!pattern.test(seen)) {
            const { value } = await stream.next()
            assert.ok(value !== undefined, seen)
            info ??= value.exec
            seen += Buffer.from(value.data ?? '', 'base64').toString()
          }
        }
        await until(/24 80\r\nready/)
        await ok('POST', at(`/execs/${info?.id}/resize`), { json: { cols: 132, rows: 50 } })
        await until(/50 132/)
        await ok('POST', at(`/execs/${info?.id}/signal`), { json: { signal: 'SIGKILL' } })
        let last: Line | undefined
        for await (const line of stream) last = line
        assert.deepEqual(last, { type: 'exit', exit: { signal: 'SIGKILL', timedOut: false } })
      }
    })

    it('that write without end are held back by a client that does not read', async () => {
      const response = await exec(id, ['sh', '-c', 'yes | head -c 200000000 | cat'], { overflow: 'block' })
      const stream = linesOf(response)
      const { id: process } = (await stream.next()).value?.exec ?? {}
      const written = async () =>
        (await ok<ExecInfo[]>('GET', at('/execs'))).find((each) => each.id === process)?.stdoutBytes ?? 0
      let before = -1
      for (let now = await written(); now !== before; now = await written()) {
        before = now
        await new Promise((resolve) => setTimeout(resolve, 300))
      }
      assert.ok(before < 100_000_000, `${before} bytes were read though nobody took them`)
      await ok('POST', at(`/execs/${process}/signal`), { json: { signal: 'SIGKILL' } })
      response.destroy()
    })
  })

  describe('files', () => {
    const content = (path: string, query = '') => at(`/files/content?path=${encodeURIComponent(path)}${query}`)

    it('are written and read whole, and in part', async () => {
      const data = randomBytes(24 * 1_048_576)
      const info = await ok<FileInfo>('PUT', content('/root/made/here/big', `&mode=${0o640}`), { body: data })
      assert.deepEqual([info.size, info.mode, info.path], [data.length, 0o640, '/root/made/here/big'])
      const digest = createHash('sha256').update(data).digest('hex')
      assert.match((await sh(id, 'sha256sum /root/made/here/big')).stdout, new RegExp(`^${digest}`))
      const response = await send('GET', content('/root/made/here/big'))
      assert.equal(response.headers['content-length'], String(data.length))
      const header = JSON.parse(Buffer.from(String(response.headers['x-file-info']), 'base64url').toString())
      assert.equal(header.size, data.length)
      assert.ok(data.equals(await buffer(response)))
      const part = await send('GET', content('/root/made/here/big', '&offset=100&length=70000'))
      assert.ok(data.subarray(100, 70_100).equals(await buffer(part)))
      assert.equal(
        (await buffer(await send('GET', content('/root/made/here/big', `&offset=${data.length}`)))).length,
        0,
      )
    })

    it('of /proc are read though their size is 0', async () => {
      assert.match(await text(await send('GET', content('/proc/meminfo'))), /MemTotal/)
    })

    it('that are empty are written and read', async () => {
      assert.equal((await ok<FileInfo>('PUT', content('/root/empty'))).size, 0)
      assert.equal((await buffer(await send('GET', content('/root/empty')))).length, 0)
    })

    it('that cannot be written are told so, however much is still to come', async () => {
      const refusal = await refused('PUT', content('/proc/version'), { body: randomBytes(8 * 1_048_576) })
      assert.ok(refusal.status < 500, JSON.stringify(refusal))
      assert.equal((await refused('GET', content('/nothing/here'))).code, 'NotFound')
      const denied = await refused('PUT', content('/root/x', '&user=nobody'), { body: 'x' })
      assert.match(denied.message, /EACCES|[Pp]ermission denied/)
    })

    it('whose upload is cut keep their old content', async () => {
      await ok('PUT', content('/root/kept'), { body: 'old' })
      const outgoing = request(server.url + content('/root/kept'), {
        method: 'PUT',
        headers: { 'x-api-key': KEY, 'content-length': '1000000' },
      })
      outgoing.on('error', () => undefined)
      outgoing.write('new')
      await once(outgoing, 'socket')
      await ok('GET', '/health')
      outgoing.destroy()
      assert.equal(await text(await send('GET', content('/root/kept'))), 'old')
    })

    it('are listed, moved, linked, changed and removed', async () => {
      const files = (what: string) => at(`/files/${what}`)
      assert.deepEqual(await ok('POST', files('directory'), { json: { path: '/root/d/e' } }), { created: true })
      assert.deepEqual(await ok('POST', files('directory'), { json: { path: '/root/d/e' } }), { created: false })
      await ok('PUT', content('/root/d/e/f'), { body: 'x' })
      await ok('POST', files('move'), { json: { from: '/root/d/e/f', to: '/root/d/g' } })
      const link = await ok<FileInfo>('POST', files('symlink'), { json: { target: 'g', path: '/root/d/link' } })
      assert.deepEqual([link.type, link.target], ['symlink', 'g'])
      const changed = await ok<FileInfo>('PATCH', at('/files'), {
        json: { path: '/root/d/g', mode: 0o4755, owner: 'nobody' },
      })
      assert.deepEqual([changed.mode, changed.owner], [0o4755, 'nobody'])
      const list = async (query: string) =>
        (await ok<FileInfo[]>('GET', files(`list?path=/root/d${query}`))).map(({ path }) => path)
      assert.deepEqual(await list(''), ['/root/d/e', '/root/d/g', '/root/d/link'])
      assert.equal((await ok<FileInfo>('GET', files('info?path=/root/d/g'))).size, 1)
      await ok('DELETE', at('/files?path=/root/d'))
      assert.equal((await refused('GET', files('info?path=/root/d'))).code, 'NotFound')
    })

    it('are watched', async () => {
      await ok('POST', at('/files/directory'), { json: { path: '/root/watched' } })
      const response = await send('GET', at('/files/watch?path=/root/watched'))
      const stream = linesOf(response)
      assert.deepEqual((await stream.next()).value, { type: 'ready' })
      await ok('PUT', content('/root/watched/new'), { body: 'x' })
      const seen: string[] = []
      for await (const { type, path } of stream) {
        seen.push(`${type} ${path}`)
        if (path?.endsWith('/new')) break
      }
      assert.match(seen.at(-1) ?? '', /^(create|rename|write) .*\/new$/)
      response.destroy()
    })
  })

  describe('ports', () => {
    const upgrade = async (port: number): Promise<{ status: number; socket?: Socket; body?: string }> => {
      const outgoing = request(server.url + at(`/ports/${port}`), {
        headers: { 'x-api-key': KEY, connection: 'Upgrade', upgrade: 'tcp' },
        allowHalfOpen: true,
        agent: false,
      } as Parameters<typeof request>[1] & object)
      outgoing.end()
      const upgraded = once(outgoing, 'upgrade').then(([response, socket, head]) => {
        socket.unshift(head)
        return { status: response.statusCode, socket }
      })
      const answered = once(outgoing, 'response').then(async ([response]) => ({
        status: response.statusCode,
        body: await text(response),
      }))
      return Promise.race([upgraded, answered])
    }

    it('carry bytes both ways, and each half ends on its own', async () => {
      const program = `
import socket
s = socket.create_server(("127.0.0.1", 4321))
print("up", flush=True)
c, _ = s.accept()
c.sendall(b"hello")
data = b""
while chunk := c.recv(65536): data += chunk
c.sendall(str(len(data)).encode())
c.close()
`
      const response = await exec(id, ['python3', '-c', program])
      const stream = linesOf(response)
      for await (const { data } of stream) if (data !== undefined) break
      const { status, socket } = await upgrade(4321)
      assert.equal(status, 101)
      assert.ok(socket !== undefined)
      socket.write(randomBytes(3_000_000))
      socket.end()
      assert.equal(await text(socket), 'hello3000000')
      response.destroy()
    })

    it('that nobody listens on are NotFound', async () => {
      const { status, body } = await upgrade(9)
      assert.equal(status, 404)
      assert.equal(JSON.parse(body ?? '').details.port, 9)
    })
  })

  it('has statistics and logs', async () => {
    const stats = await ok<{ memoryBytes: number; processes: number }>('GET', at('/stats'))
    assert.ok(stats.memoryBytes > 0)
    const logged = await create({ template: 'base', entrypoint: ['sh', '-c', 'echo started; sleep 1000'] })
    const response = await send('GET', `/v1/sandboxes/${logged.id}/logs?follow=true`)
    assert.match(String(response.headers['content-type']), /^text\/plain/)
    let seen = ''
    for await (const chunk of response) {
      seen += chunk
      if (seen.includes('started\n')) break
    }
    assert.match(await text(await send('GET', `/v1/sandboxes/${logged.id}/logs`)), /started\n/)
    await remove(logged)
  })

  it('follows the start command and the entrypoint together', { timeout: 30_000 }, async () => {
    const startCommand = ['sh', '-c', 'echo one; until [ -e /tmp/two ]; do sleep 0.05; done; echo three; sleep 1000']
    const readyCommand = ['true']
    await ok('POST', '/v1/templates', {
      json: { name: 'two', image: BASE_IMAGE, size: { memoryMiB: 256, diskMiB: 512 }, startCommand, readyCommand },
      headers: WAIT,
    })
    const logged = await create({ template: 'two', entrypoint: ['sh', '-c', 'echo two; touch /tmp/two; sleep 1000'] })
    const response = await send('GET', `/v1/sandboxes/${logged.id}/logs?follow=true`)
    let seen = ''
    for await (const chunk of response) {
      seen += chunk
      if (['one\n', 'two\n', 'three\n'].every((line) => seen.includes(line))) break
    }
    await remove(logged)
    await ok('DELETE', '/v1/templates/two', { headers: WAIT })
  })
})

describe('streams', () => {
  it('end with the error when their sandbox goes away', async () => {
    const { id } = await create()
    const response = await exec(id, ['sleep', '1000'])
    const stream = linesOf(response)
    await stream.next()
    await remove({ id })
    const rest = await Array.fromAsync(stream)
    assert.deepEqual(
      rest.map(({ type, error }) => [type, error?.code]),
      [['error', 'GuestFailed']],
    )
  })

  it('end when the server closes; their processes go on', async () => {
    const { id } = await create()
    const other = await serve()
    const response = await send('POST', `/v1/sandboxes/${id}/execs`, {
      server: other,
      json: { argv: ['sleep', '1000'] },
    })
    const logs = await send('GET', `/v1/sandboxes/${id}/files/watch?path=/root`, { server: other })
    const stream = linesOf(response)
    const process = (await stream.next()).value?.exec?.id
    await other.close(AbortSignal.timeout(30_000))
    for (const lines of [stream, linesOf(logs)]) {
      const last = (await Array.fromAsync(lines)).at(-1)
      assert.deepEqual([last?.type, last?.error?.code], ['error', 'Unavailable'])
    }
    const execs = await ok<ExecInfo[]>('GET', `/v1/sandboxes/${id}/execs`)
    const found = execs.find((each) => each.id === process)
    assert.ok(found !== undefined && found.exit === undefined)
    await remove({ id })
  })
})
