import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { Readable } from 'node:stream'
import { test } from 'node:test'
import { IceboxError, isIceboxError } from './error.ts'
import { Icebox } from './icebox.ts'
import { ForkError } from './sandbox.ts'
import { NOT_FOUND, peer, SANDBOX, sendJson } from './testing.ts'

const page = (items: unknown[], nextToken?: string) => ({
  items,
  pagination: {
    page: 1,
    pageSize: 100,
    totalItems: 2,
    totalPages: 2,
    hasNextPage: nextToken !== undefined,
    ...(nextToken === undefined ? {} : { nextToken }),
  },
})

test('an error of the API keeps its code, message, remedy, status and request id', async (t) => {
  const { icebox } = await peer(t, (_, response) => sendJson(response, 404, NOT_FOUND))
  await assert.rejects(icebox.sandboxes.connect('x'), (thrown) => {
    assert.ok(isIceboxError(thrown, 'NotFound'))
    assert.deepEqual(thrown.toJSON(), NOT_FOUND)
    assert.deepEqual([thrown.status, thrown.requestId], [404, 'request-1'])
    return true
  })
})

test('what is no answer of this API is said to be none', async (t) => {
  const { icebox } = await peer(t, (one, response) => {
    if (one.path.endsWith('/page')) response.writeHead(500).end('<html>')
    else if (one.path.endsWith('/text')) response.end('hello')
    else sendJson(response, 200, { name: 'no id' })
  })
  for (const ref of ['page', 'text', 'other'])
    await assert.rejects(icebox.sandboxes.connect(ref), { code: 'Internal', message: /not understood/ })
})

test('nobody there: Unavailable, with what to do', async () => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  assert.ok(typeof address === 'object' && address !== null)
  server.close()
  await once(server, 'close')
  const icebox = new Icebox({ url: `http://127.0.0.1:${address.port}`, apiKey: 'key' })
  await assert.rejects(icebox.health(), { code: 'Unavailable', message: /ECONNREFUSED/, remedy: /icebox up/ })
})

test('a url that is none is refused before anything is sent', () => {
  for (const url of ['127.0.0.1', 'ftp://x', '']) assert.throws(() => new Icebox({ url }), { code: 'InvalidArgument' })
})

test('a broken connection: reading is tried again, changing is not', async (t) => {
  let broken = 0
  const { icebox, sandbox, asked } = await peer(t, (one, response) => {
    if (broken > 0) {
      broken -= 1
      response.destroy()
    } else sendJson(response, 200, one.path.endsWith('/sandboxes') ? page([]) : SANDBOX)
  })
  broken = 2
  assert.deepEqual(await icebox.sandboxes.list(), [])
  assert.equal(asked.length, 3)
  broken = 1
  await assert.rejects(sandbox.pause(), { code: 'Unavailable' })
  assert.equal(asked.length, 4)
})

test('a deletion whose answer was lost has happened', async (t) => {
  let first = true
  const { sandbox, icebox } = await peer(t, (one, response) => {
    if (first && !one.path.includes('snapshots')) {
      first = false
      response.destroy()
    } else sendJson(response, 404, NOT_FOUND)
  })
  await sandbox.delete()
  await assert.rejects(sandbox.delete(), { code: 'NotFound' })
  await assert.rejects(icebox.snapshots.delete('x'), { code: 'NotFound' })
  await sandbox[Symbol.asyncDispose]()
})

test('time over and abort end the wait, each with its own error', async (t) => {
  const { icebox } = await peer(t, () => {})
  await assert.rejects(icebox.health({ requestTimeoutMs: 30 }), { code: 'DeadlineExceeded', message: /30 ms/ })
  const reason = new Error('no longer wanted')
  await assert.rejects(icebox.health({ signal: AbortSignal.abort(reason) }), reason)
  const controller = new AbortController()
  const waiting = icebox.health({ signal: controller.signal, requestTimeoutMs: 60_000 })
  controller.abort(reason)
  await assert.rejects(waiting, reason)
})

test('a list is all of its pages', async (t) => {
  const { icebox, asked } = await peer(t, (one, response) => {
    const second = one.query.get('after') === 'token'
    sendJson(response, 200, page([{ ...SANDBOX, id: second ? 'b' : 'a' }], second ? undefined : 'token'))
  })
  const list = await icebox.sandboxes.list({ state: ['Running', 'Paused'], metadata: { k: 'a&b', l: '2' } })
  assert.deepEqual(
    list.map((sandbox) => sandbox.id),
    ['a', 'b'],
  )
  assert.deepEqual(asked[0]?.query.getAll('state'), ['Running', 'Paused'])
  assert.equal(asked[0]?.query.get('metadata'), 'k=a%26b&l=2')
})

test('a list that is iterated asks for its pages as they are needed', async (t) => {
  const { icebox, asked } = await peer(t, (one, response) => {
    const second = one.query.get('after') === 'token'
    sendJson(response, 200, page([{ ...SANDBOX, id: second ? 'b' : 'a' }], second ? undefined : 'token'))
  })
  const list = icebox.sandboxes.list()
  assert.equal(asked.length, 0)
  for await (const { id } of list) {
    assert.equal(id, 'a')
    break
  }
  assert.equal(asked.length, 1)
  assert.deepEqual(await Array.fromAsync(list, ({ id }) => id), ['a', 'b'])
  assert.equal(asked.length, 3)
})

test('create waits until it runs, and names what it is made of as the API does', async (t) => {
  const { icebox, asked } = await peer(t, (_, response) => sendJson(response, 202, SANDBOX))
  const sandbox = await icebox.sandboxes.create({ image: 'debian:bookworm', name: 'box', timeout: 60 })
  assert.equal(sandbox.id, SANDBOX.id)
  assert.deepEqual(JSON.parse(asked[0]?.body ?? ''), { image: { uri: 'debian:bookworm' }, name: 'box', timeout: 60 })
  assert.match(String(asked[0]?.headers.prefer), /^wait=\d+$/)
})

test('what has not settled in the longest wait is an error that names the state', async (t) => {
  const { sandbox } = await peer(t, (_, response) =>
    sendJson(response, 202, { ...SANDBOX, status: { state: 'Pausing' } }),
  )
  await assert.rejects(sandbox.pause(), { code: 'DeadlineExceeded', message: /Pausing/ })
})

test('a fork with failures throws them and carries the children that run', async (t) => {
  const { sandbox } = await peer(t, (_, response) =>
    sendJson(response, 201, [
      { sandbox: { ...SANDBOX, id: 'a' } },
      { error: NOT_FOUND },
      { sandbox: { ...SANDBOX, id: 'c' } },
    ]),
  )
  assert.equal((await sandbox.forkResults(3)).length, 3)
  await assert.rejects(sandbox.fork(3), (thrown) => {
    assert.ok(thrown instanceof ForkError)
    assert.deepEqual(
      thrown.sandboxes.map((child) => child.id),
      ['a', 'c'],
    )
    assert.ok(thrown.errors.length === 1 && isIceboxError(thrown.errors[0], 'NotFound'))
    return true
  })
})

test('progress is told and ends in a result, an error, or a break that is an error too', async (t) => {
  const { icebox } = await peer(t, (one, response) => {
    const { reference } = JSON.parse(one.body)
    response.write('{"phase":"layers","done":1,"total":2,"unit":"bytes"}\n')
    if (reference === 'good') response.end(`${JSON.stringify({ result: { id: 'd' } })}\n`)
    else if (reference === 'bad') response.end(`${JSON.stringify({ error: NOT_FOUND })}\n`)
    else response.end()
  })
  const steps: unknown[] = []
  const image = await icebox.images.pull('good', { onProgress: (step) => steps.push(step) })
  assert.equal(image.id, 'd')
  assert.deepEqual(steps, [{ phase: 'layers', done: 1, total: 2, unit: 'bytes' }])
  await assert.rejects(icebox.images.pull('bad'), { code: 'NotFound' })
  await assert.rejects(icebox.images.pull('cut'), { code: 'Unavailable' })
})

test('files are streamed, and a part is never taken for the whole', async (t) => {
  const info = { path: '/a b', name: 'a b', type: 'file', size: 10, mode: 0o644 }
  const { sandbox, asked } = await peer(t, (one, response) => {
    const header = { 'x-file-info': Buffer.from(JSON.stringify(info)).toString('base64url'), 'content-length': '10' }
    if (one.method === 'PUT') sendJson(response, 200, info)
    else if (one.query.get('path') === '/cut') response.writeHead(200, header).write('01234', () => response.destroy())
    else response.writeHead(200, header).end('0123456789')
  })
  assert.equal(await sandbox.files.read('/a b', { encoding: 'utf8', user: 'me' }), '0123456789')
  assert.deepEqual([asked[0]?.query.get('path'), asked[0]?.query.get('user')], ['/a b', 'me'])
  await assert.rejects(sandbox.files.read('/cut'), { code: 'Unavailable' })
  await sandbox.files.write('/a b', Readable.from([Buffer.from('ab'), Buffer.from('cd')]), { mode: 0o755 })
  assert.deepEqual([asked.at(-1)?.body, asked.at(-1)?.query.get('mode')], ['abcd', '493'])
  const failing = Readable.from(
    (async function* () {
      yield Buffer.from('x')
      throw new Error('the source broke')
    })(),
  )
  await assert.rejects(sandbox.files.write('/a b', failing), { message: 'the source broke' })
})

test('a watch resolves when it is ready and gives the changes', async (t) => {
  const { sandbox } = await peer(t, (_, response) => {
    response.write('{"type":"ready"}\n')
    response.end('{"type":"create","path":"/a"}\n{"type":"overflow"}\n')
  })
  assert.deepEqual(await Array.fromAsync(await sandbox.files.watch('/')), [
    { type: 'create', path: '/a' },
    { type: 'overflow' },
  ])
})

test('a port is a raw stream whose halves end apart', async (t) => {
  const { sandbox, server } = await peer(t, (_, response) => sendJson(response, 404, NOT_FOUND))
  await assert.rejects(sandbox.port(80), { code: 'NotFound' })
  server.on('upgrade', (request, socket) => {
    assert.equal(request.headers.upgrade, 'tcp')
    socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nhello ')
    let all = ''
    socket.on('data', (data) => {
      all += data
    })
    // Answers only once our half has ended.
    socket.on('end', () => socket.end(all.toUpperCase()))
  })
  const stream = await sandbox.port(8080)
  stream.end('world')
  let answer = ''
  for await (const chunk of stream) answer += chunk
  assert.equal(answer, 'hello WORLD')
})

test('errors print as the API writes them', () => {
  assert.equal(JSON.stringify({ error: new IceboxError(404, NOT_FOUND) }), JSON.stringify({ error: NOT_FOUND }))
})
