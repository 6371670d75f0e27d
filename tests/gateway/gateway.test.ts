import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { type IncomingMessage, request } from 'node:http'
import { connect } from 'node:net'
import { text } from 'node:stream/consumers'
import { after, before, describe, it } from 'node:test'
import type { Server } from '@icebox/server'
import { KEY } from '../faults/parts.ts'
import { eventually } from '../server-process.ts'
import { call, Inside, send } from './inside.ts'

/** The way into sandboxes, with real services in real sandboxes. */

let inside: Inside
let server: Server
let id: string
before(async () => {
  inside = await Inside.open()
  server = await inside.serve({ domains: ['ice.example'] })
  id = await inside.sandbox()
})
after(() => inside?.[Symbol.asyncDispose]())

const at = (port: number, of = id) => ({ host: `${port}-${of}.localhost:7070` })
/** A URL of the service on a port, by path. */
const path = (rest: string, port = 3000, of = id) => `${server.url}/v1/sandboxes/${of}/proxy/${port}${rest}`
const url = (rest: string) => server.url + rest
const state = async () => (await call(path('/state'))).body

/** Sends bytes as they are and gives all that comes back; `half`: ends its own half at once. */
async function raw(bytes: string, { half = false } = {}): Promise<string> {
  const { hostname, port } = new URL(server.url)
  const socket = connect({ host: hostname, port: Number(port), allowHalfOpen: true })
  if (half) socket.end(bytes, 'latin1')
  else socket.write(bytes, 'latin1')
  try {
    return await text(socket)
  } finally {
    socket.destroy()
  }
}

describe('a port is found', () => {
  it("by E2B's headers, by host and by path", async () => {
    const byHeaders = { 'e2b-sandbox-id': id, 'e2b-sandbox-port': '3000' }
    assert.equal((await call(url('/a?b=%20c'), { headers: byHeaders })).body.path, '/a?b=%20c')
    for (const host of [`3000-${id}.localhost`, `3000-${id}.localhost:7070`, `3000-${id}.ICE.example.`])
      assert.equal((await call(url('/a?b=%20c'), { headers: { host } })).body.path, '/a?b=%20c', host)
    for (const [rest, seen] of [
      ['/a%2Fb/?c=d', '/a%2Fb/?c=d'],
      ['', '/'],
      ['/', '/'],
      ['?x=1', '/?x=1'],
    ] as const)
      assert.equal((await call(path(rest), {})).body.path, seen)
    assert.equal((await call(url('/x'), { headers: { ...byHeaders, ...at(3000) } })).body.path, '/x')
    const odd = await raw(`GET /a/..//%2e?? HTTP/1.1\r\nHost: 3000-${id}.localhost\r\nConnection: close\r\n\r\n`)
    assert.ok(odd.includes('"path": "/a/..//%2e??"'), odd)
  })

  it('never where it is half right', async () => {
    for (const headers of [
      { 'e2b-sandbox-id': id },
      { 'e2b-sandbox-port': '3000' },
      { 'e2b-sandbox-id': 'nonsense', 'e2b-sandbox-port': '3000' },
      { 'e2b-sandbox-id': id, 'e2b-sandbox-port': '0' },
      { 'e2b-sandbox-id': id, 'e2b-sandbox-port': '65536' },
      { 'e2b-sandbox-id': id, 'e2b-sandbox-port': '03000' },
      { 'e2b-sandbox-id': id, 'e2b-sandbox-port': '3000 ' + 'x' },
      { 'e2b-sandbox-id': id, 'e2b-sandbox-port': '3001', ...at(3000) },
      at(0),
      at(65_536),
      { host: `3000-${id}x.localhost` },
      { host: `3000-a.${id}.localhost` },
      { host: '3000-.localhost' },
    ]) {
      const { status, body } = await call(url('/'), { headers })
      assert.deepEqual([status, body.code], [400, 400], JSON.stringify(headers))
      assert.ok(String(body.message).length > 10)
    }
    for (const wrong of [path('/', 0), path('/', 99_999), path('/', 3000, 'abc'), path('/', 3000, `%61${id.slice(1)}`)])
      assert.equal((await call(wrong)).status, 400, wrong)
  })

  it('on no other host, and the rest is for the API', async () => {
    for (const host of [`3000-${id}.evil.example`, 'evil.example', `3000-${id}.localhost.evil.example`])
      assert.equal((await call(url('/'), { headers: { host } })).status, 403, host)
    assert.equal((await call(path('/'), { headers: { host: 'evil.example' } })).status, 403)
    for (const host of ['api.ice.example', 'ice.example', 'localhost'])
      assert.equal((await call(url('/v1/info'), { headers: { host, 'x-api-key': KEY } })).status, 200, host)
  })
})

describe('what is not there', () => {
  const unknown = 'a0123456789012345678'
  it('is said as E2B says it, and as a page to browsers', async () => {
    const closed = await call(path('/', 9))
    assert.equal(closed.status, 502)
    assert.deepEqual(closed.body, {
      sandboxId: id,
      message: 'The sandbox is running but port is not open',
      port: 9,
      code: 502,
    })
    const post = await call(path('/', 9), { method: 'POST' }, 'body')
    assert.deepEqual(post.body, closed.body)
    const nobody = await call(url('/'), { headers: at(3000, unknown) })
    assert.equal(nobody.status, 502)
    assert.deepEqual(nobody.body, { sandboxId: unknown, message: 'The sandbox was not found', code: 502 })
    const accept = 'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8'
    const page = await call(url('/'), { headers: { ...at(9), accept } })
    assert.equal(page.status, 502)
    assert.match(String(page.headers['content-type']), /^text\/html/)
    assert.match(page.text, /<h1>The sandbox is running but port is not open<\/h1>[\s\S]*Port 9/)
    for (const plain of ['*/*', 'application/json', 'application/json, text/html;q=0.5'])
      assert.match((await call(url('/'), { headers: { ...at(9), accept: plain } })).text, /^\{/)
    const head = await call(url('/'), { method: 'HEAD', headers: at(9) })
    assert.deepEqual([head.status, head.text], [502, ''])
  })

  it('is said by each guest service as its clients know it, with a key and without', async () => {
    for (const headers of [{}, { 'x-api-key': KEY }]) {
      const envd = await call(url('/files?path=x'), { headers: { ...at(49_983, unknown), ...headers } })
      assert.deepEqual(
        [envd.status, envd.body],
        [502, { sandboxId: unknown, message: 'The sandbox was not found', code: 502 }],
      )
      const execd = await call(url('/ping'), { headers: { ...at(44_772, unknown), ...headers } })
      assert.deepEqual([execd.status, execd.body.code], [502, 'SANDBOX_NOT_FOUND'])
    }
  })

  it('is a paused sandbox that does not ask to be resumed', async () => {
    const paused = await inside.sandbox()
    const { sandboxes } = inside.parts.project
    await (await sandboxes.pause(paused, {}, AbortSignal.timeout(60_000))).settled
    const { status, body } = await call(path('/', 3000, paused))
    assert.deepEqual([status, body.code, body.sandboxId], [502, 502, paused])
    assert.match(body.message ?? '', /paused/)
    await (await sandboxes.delete(paused, AbortSignal.timeout(60_000))).settled
  })
})

describe('a paused sandbox that asks to be resumed', () => {
  it('is resumed once, by however many requests', async () => {
    const sleeper = await inside.sandbox({ autoResume: true, timeout: 3600 })
    await (await inside.parts.project.sandboxes.pause(sleeper, {}, AbortSignal.timeout(60_000))).settled
    const answers = await Promise.all(Array.from({ length: 10 }, () => call(path('/c', 3000, sleeper))))
    assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([200]))
  })
})

describe('a port that is not public', () => {
  let closed: string
  before(async () => {
    closed = await inside.sandbox({ publicTraffic: false })
  })
  it('wants its token, or a key of the project, in every way to it', async () => {
    const sandbox = await inside.parts.control.traffic.find(closed, AbortSignal.timeout(60_000))
    const { traffic, access } = inside.parts.control.traffic.tokens(sandbox)
    const { key: other } = await inside.parts.control.keys.create({ project: 'other', label: 'x' })
    for (const [where, headers] of [
      [url('/'), { 'e2b-sandbox-id': closed, 'e2b-sandbox-port': '3000' }],
      [url('/'), at(3000, closed)],
      [path('/', 3000, closed), {}],
    ] as const) {
      const status = async (more: Record<string, string>) =>
        (await call(where, { headers: { ...headers, ...more } })).status
      assert.equal(await status({}), 403)
      assert.equal(await status({ 'e2b-traffic-access-token': access }), 403)
      assert.equal(await status({ 'e2b-traffic-access-token': traffic.slice(1) }), 403)
      assert.equal(await status({ 'x-api-key': other }), 403)
      assert.equal(await status({ 'e2b-traffic-access-token': traffic }), 200)
      assert.equal(await status({ 'x-api-key': KEY }), 200)
      assert.equal(await status({ authorization: `Bearer ${KEY}` }), 200)
    }
    const refused = await call(url('/'), { headers: at(3000, closed) })
    assert.deepEqual(Object.keys(refused.body).sort(), ['code', 'message', 'port', 'sandboxId'])
  })

  it('is not upgraded either', async () => {
    const answer = await raw(
      `GET /tcp HTTP/1.1\r\nHost: 3002-${closed}.localhost\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n`,
    )
    assert.match(answer, /^HTTP\/1\.1 403 /)
  })
})

describe('headers', () => {
  type Seen = [string, string][]
  const seen = async (headers: Record<string, string | string[]>, more: object = {}) => {
    const { body } = await call(url('/h'), { headers: { ...at(3000), ...headers }, ...more })
    return body.headers ?? []
  }
  const get = (headers: Seen, name: string) => headers.filter(([each]) => each === name).map(([, value]) => value)

  it('of one hop stay on it, both ways', async () => {
    const there = await seen({
      connection: 'keep-alive, X-Mine',
      'x-mine': '1',
      'keep-alive': 'timeout=5',
      te: 'gzip, trailers',
      'proxy-authorization': 'Basic eA==',
      'proxy-connection': 'keep-alive',
      'x-kept': ['a', 'b'],
    })
    for (const name of ['x-mine', 'keep-alive', 'proxy-authorization', 'proxy-connection'])
      assert.deepEqual(get(there, name), [], name)
    assert.deepEqual(get(there, 'te'), ['trailers'])
    assert.deepEqual(get(there, 'x-kept'), ['a', 'b'])
    const { headers } = await call(path('/hop'))
    for (const name of ['x-private', 'keep-alive', 'proxy-authenticate']) assert.equal(headers[name], undefined, name)
    assert.equal(headers['x-kept'], 'yes')
    assert.deepEqual(headers['set-cookie'], ['a=1', 'b=2'])
  })

  it('give no service worker of a sandbox what is for others of the same origin', async () => {
    const byPath = (await call(path('/hop'))).headers
    assert.deepEqual([byPath['x-kept'], byPath['service-worker-allowed']], ['yes', undefined])
    const byHost = (await call(url('/hop'), { headers: at(3000) })).headers
    assert.equal(byHost['service-worker-allowed'], '/')
  })

  it('with our secrets never reach the sandbox; those of its own services do', async () => {
    const sandbox = await inside.parts.control.traffic.find(id, AbortSignal.timeout(60_000))
    const { traffic, access } = inside.parts.control.traffic.tokens(sandbox)
    const there = await seen({
      'x-api-key': KEY,
      'open-sandbox-api-key': 'anything',
      authorization: `Bearer e2b_${'1'.repeat(40)}`,
      'x-access-token': access,
      'e2b-traffic-access-token': traffic,
      'e2b-anything': '1',
    })
    const text = JSON.stringify(there)
    for (const secret of [KEY, traffic, access, 'anything', '1111']) assert.ok(!text.includes(secret), secret)
    const odd = [`Authorization: Token ${KEY}`, `Authorization: Basic eDp5\r\nAuthorization: Bearer ${KEY}`]
    for (const header of [...odd, `X-API-Key: a\r\nX-API-Key: ${KEY}`]) {
      const head = `GET /h HTTP/1.1\r\nHost: 3000-${id}.localhost\r\nConnection: close\r\n${header}\r\n\r\n`
      const answer = await raw(head)
      assert.match(answer, / 200 OK\r\n/)
      assert.ok(!answer.includes(KEY), header)
    }
    const own = await seen({ 'x-api-key': 'own', authorization: 'Bearer own', 'x-access-token': 'own', cookie: 'a=b' })
    for (const name of ['x-api-key', 'authorization', 'x-access-token', 'cookie'])
      assert.equal(get(own, name).length, 1, name)
  })

  it('say who asked, and for what', async () => {
    const there = await seen({})
    assert.deepEqual(get(there, 'host'), [`3000-${id}.localhost:7070`])
    assert.deepEqual(get(there, 'x-forwarded-host'), [`3000-${id}.localhost:7070`])
    assert.deepEqual(get(there, 'x-forwarded-for'), ['127.0.0.1'])
    assert.deepEqual(get(there, 'x-forwarded-proto'), ['http'])
    // A proxy on this machine is believed.
    const behind = await seen({ 'x-forwarded-for': '203.0.113.7', 'x-forwarded-proto': 'https' })
    assert.deepEqual(get(behind, 'x-forwarded-for'), ['203.0.113.7, 127.0.0.1'])
    assert.deepEqual(get(behind, 'x-forwarded-proto'), ['https'])
    const byPath = (await call(path('/h'))).body.headers ?? []
    assert.deepEqual(get(byPath, 'x-forwarded-prefix'), [`/v1/sandboxes/${id}/proxy/3000`])
  })

  it('name the host that the sandbox asked to be called', async () => {
    const masked = await inside.sandbox({ network: { maskRequestHost: `localhost:$${'{PORT}'}` } })
    const there = (await call(path('/h', 3000, masked))).body.headers ?? []
    assert.deepEqual(get(there, 'host'), ['localhost:3000'])
  })

  it('cannot smuggle a request past the gateway', async () => {
    const head = `POST /s HTTP/1.1\r\nHost: 3000-${id}.localhost\r\n`
    for (const framing of [
      'Content-Length: 5\r\nTransfer-Encoding: chunked\r\n',
      'Content-Length: 5\r\nContent-Length: 6\r\n',
      'Content-Length: 5, 6\r\n',
      'Transfer-Encoding: chunked, identity\r\n',
      'Transfer-Encoding: xchunked\r\n',
      'Transfer-Encoding : chunked\r\n',
      'Content-Length: +5\r\n',
      'X: y\nTransfer-Encoding: chunked\r\n',
      'Transfer-Encoding: gzip, chunked\r\n',
    ]) {
      const answer = await raw(
        `${head}${framing}Connection: close\r\n\r\n0\r\n\r\nGET /other HTTP/1.1\r\nHost: x\r\n\r\n`,
      )
      assert.match(answer, /^HTTP\/1\.1 400 /, framing)
      assert.doesNotMatch(answer, /200 OK/)
    }
    // Its length is not for a header to take away.
    const named = await call(
      url('/'),
      { method: 'POST', headers: { ...at(3000), connection: 'content-length', 'content-length': '4' } },
      'body',
    )
    assert.equal(named.body.size, 4)
    const twice = await call(path('/smuggle', 3002))
    assert.equal(twice.status, 502)
  })

  it('that are too long are refused on either side', async () => {
    const answer = await raw(`GET / HTTP/1.1\r\nHost: 3000-${id}.localhost\r\nX: ${'x'.repeat(100_000)}\r\n\r\n`)
    assert.match(answer, /^HTTP\/1\.1 431 /)
    assert.equal((await call(path('/huge', 3002))).status, 502)
  })
})

describe('bodies', () => {
  it('of every kind arrive as they were', async () => {
    const body = randomBytes(300_000)
    const sha256 = createHash('sha256').update(body).digest('hex')
    for (const [method, framing] of [
      ['POST', { 'content-length': String(body.length) }],
      ['PUT', { 'transfer-encoding': 'chunked' }],
      ['DELETE', { 'content-length': String(body.length) }],
      ['GET', { 'transfer-encoding': 'chunked' }],
    ] as const) {
      const answer = await call(path('/b'), { method, headers: framing }, body)
      assert.deepEqual([answer.body.method, answer.body.size, answer.body.sha256], [method, body.length, sha256])
    }
    const empty = await call(path('/b'), { method: 'POST', headers: { 'content-length': '0' } })
    assert.equal(empty.body.size, 0)
    const none = await raw(`POST /b HTTP/1.1\r\nHost: 3000-${id}.localhost\r\nConnection: close\r\n\r\n`)
    assert.match(none, /^HTTP\/1\.1 200 [\s\S]*"content-length", "0"/)
    assert.match(await raw(`GET /ten HTTP/1.0\r\nHost: 3002-${id}.localhost\r\n\r\n`), /until the end$/)
    assert.equal((await call(path('/ten', 3002))).text, 'until the end')
  })

  it('go both ways at once, with trailers', async () => {
    const outgoing = request(path('/echo-stream'), {
      method: 'POST',
      agent: false,
      headers: { 'transfer-encoding': 'chunked', trailer: 'X-Mine', te: 'trailers' },
    })
    outgoing.write('first')
    const [response] = (await once(outgoing, 'response')) as [IncomingMessage]
    assert.equal(String((await once(response, 'data'))[0]), 'first')
    outgoing.write('second')
    assert.equal(String((await once(response, 'data'))[0]), 'second')
    outgoing.addTrailers({ 'X-Mine': 'yes' })
    outgoing.end()
    await text(response)
    const sum = createHash('sha256').update('firstsecond').digest('hex')
    assert.deepEqual(response.trailers, { 'x-sum': sum, 'x-seen': '{"x-mine": "yes"}' })
  })

  it('are sent only once they are asked for', async () => {
    const outgoing = request(path('/continue', 3002), {
      method: 'POST',
      agent: false,
      headers: { expect: '100-continue', 'content-length': '4' },
    })
    outgoing.flushHeaders()
    await once(outgoing, 'continue')
    outgoing.end('body')
    const [response] = (await once(outgoing, 'response')) as [IncomingMessage]
    assert.equal(await text(response), 'body')
  })

  it('may be answered before they have arrived', async () => {
    const outgoing = request(path('/early'), {
      method: 'POST',
      agent: false,
      headers: { 'content-length': '100000000' },
    })
    outgoing.on('error', () => undefined)
    outgoing.write(Buffer.alloc(1_000_000))
    const [response] = (await once(outgoing, 'response')) as [IncomingMessage]
    assert.deepEqual([response.statusCode, JSON.parse(await text(response))], [413, { early: true }])
    outgoing.destroy()
  })

  it('that break off are cut, whoever sent them', async () => {
    await assert.rejects(call(path('/half')), /aborted|hang up|ECONNRESET/)
    const { open = 0 } = await state()
    const outgoing = request(path('/never'), { method: 'POST', agent: false, headers: { 'content-length': '1000' } })
    outgoing.on('error', () => undefined)
    outgoing.write('half')
    await eventually(async () => (((await state()).open ?? 0) > open ? true : undefined), 'the request is there')
    outgoing.destroy()
    await eventually(async () => (((await state()).open ?? 0) <= open ? true : undefined), 'the connection has ended')
  })
})

describe('answers', () => {
  it('come event by event', async () => {
    const response = await send(path('/sse'))
    assert.equal(response.headers['content-type'], 'text/event-stream')
    const events = response.iterator()
    assert.equal(String((await events.next()).value), 'data: one\n\n')
    await call(path('/next'))
    assert.equal(String((await events.next()).value), 'data: two\n\n')
    assert.ok((await events.next()).done)
  })

  it('begin before there is anything in them', async () => {
    const response = await send(path('/quiet'))
    assert.equal(response.statusCode, 200)
    await call(path('/next'))
    assert.equal(await text(response), 'late')
  })

  it('of 100 MB are held back by who does not read, and cost the server no memory', async () => {
    const total = 100_000_000
    const response = await send(path(`/bytes?n=${total}`))
    await once(response, 'readable')
    // It stands still once all between is full.
    let written = -1
    await eventually(async () => {
      const now = (await state()).written ?? 0
      const still = now === written && now > 0
      written = now
      await new Promise((resolve) => setTimeout(resolve, 200))
      return still ? true : undefined
    }, 'the writer stands still')
    assert.ok(written < total / 4, `${written} bytes were taken off the guest`)
    let most = 0
    const first = process.memoryUsage().rss
    const hash = createHash('sha256')
    let size = 0
    for await (const chunk of response) {
      hash.update(chunk)
      size += chunk.length
      most = Math.max(most, process.memoryUsage().rss)
    }
    assert.equal(size, total)
    const block = Buffer.from(Array.from({ length: 256 }, (_, n) => n))
    const expected = createHash('sha256')
    for (let at = 0; at < total; at += 256) expected.update(block.subarray(0, Math.min(256, total - at)))
    assert.equal(hash.digest('hex'), expected.digest('hex'))
    assert.ok(most - first < 80 * 2 ** 20, `${(most - first) / 2 ** 20} MiB more memory`)
  })

  it('to 200 requests at once are all right', async () => {
    const answers = await Promise.all(Array.from({ length: 200 }, (_, n) => call(path(`/n?${n}`))))
    answers.forEach(({ status, body }, n) => {
      assert.deepEqual([status, body.path], [200, `/n?${n}`])
    })
  })

  it('are all answered when there are 1 000, of 50 clients at once', async () => {
    let asked = 0
    const client = async () => {
      while (asked < 1000) {
        const each = path(`/n?${asked++}`)
        const { status, body } = await call(each)
        assert.deepEqual([status, body.path], [200, each.slice(each.indexOf('/n?'))])
      }
    }
    await Promise.all(Array.from({ length: 50 }, client))
    assert.equal(asked, 1000)
  })

  it('of a client that went away are not read on', async () => {
    const before = (await state()).open ?? 0
    const response = await send(path('/bytes?n=100000000'))
    await once(response, 'readable')
    response.destroy()
    await eventually(async () => (((await state()).open ?? 0) <= before ? true : undefined), 'the connection has ended')
  })

  it("that no server should give are the service's failure, and nobody else's", async () => {
    const offers = ['Connection: close', 'Connection: Upgrade\r\nUpgrade: websocket']
    for (const [odd, expected] of [
      ['reason', / 200 \r\n[\s\S]*hi$/],
      ['coding', / 502 Bad Gateway\r\n/],
      ['header', / 502 Bad Gateway\r\n/],
      ['status', / 502 Bad Gateway\r\n/],
      ['switch', / 502 Bad Gateway\r\n/],
      ['empty', / 204 No Content\r\n/],
    ] as const)
      for (const offer of offers) {
        const answer = await raw(`GET /odd-${odd} HTTP/1.1\r\nHost: 3002-${id}.localhost\r\n${offer}\r\n\r\n`)
        assert.match(answer, expected, `${odd}, ${offer}`)
        assert.doesNotMatch(answer, /content-length: 5/i)
      }
    assert.equal((await call(path('/reset', 3002))).status, 502)
    assert.equal((await call(path('/c'))).status, 200)
  })

  it('that are no HTTP, or late, are said so', async () => {
    assert.equal((await call(path('/garbage', 3002))).status, 502)
    const hasty = await inside.serve({ gateway: { headDeadline: 100 } })
    const late = await call(`${hasty.url}/v1/sandboxes/${id}/proxy/3000/hang`)
    assert.deepEqual([late.status, late.body.code], [504, 504])
    await call(path('/next'))
  })
})

describe('connections into a sandbox', () => {
  it('serve several requests, and only such as may be repeated', async () => {
    const first = (await call(path('/c'))).body.connection
    assert.equal((await call(path('/c'))).body.connection, first)
    assert.notEqual((await call(path('/c'), { method: 'POST' }, 'x')).body.connection, first)
  })

  it('that the service closes while they wait are replaced', async () => {
    for (let round = 0; round < 10; round++) {
      const { body } = await call(path('/die-after'))
      await new Promise((resolve) => setTimeout(resolve, 45 + round))
      const next = await call(path('/c'))
      assert.equal(next.status, 200)
      assert.ok(body.connection)
    }
  })

  it('are those of the present run', async () => {
    const again = await inside.sandbox()
    const { sandboxes } = inside.parts.project
    assert.equal((await call(path('/c', 3000, again))).status, 200)
    const long = await send(path('/bytes?n=100000000000', 3000, again))
    await once(long, 'readable')
    const cut = assert.rejects(async () => {
      for await (const _ of long);
    })
    const signal = AbortSignal.timeout(60_000)
    await (await sandboxes.pause(again, {}, signal)).settled
    await cut
    assert.equal((await call(path('/c', 3000, again))).status, 502)
    await (await sandboxes.resume(again, signal)).settled
    assert.equal((await call(path('/c', 3000, again))).status, 200)
    await (await sandboxes.delete(again, signal)).settled
    assert.equal((await call(path('/c', 3000, again))).body.message, 'The sandbox was not found')
  })

  it('are not more than a sandbox and the server may have', async () => {
    const small = await inside.serve({ gateway: { limits: { each: 2, inAll: 3 } } })
    const other = await inside.sandbox()
    const to = (rest: string, of: string) => `${small.url}/v1/sandboxes/${of}/proxy/3000${rest}`
    const open = await Promise.all([send(to('/quiet', id)), send(to('/quiet', id))])
    const refused = await call(to('/c', id))
    assert.deepEqual([refused.status, refused.headers['retry-after']], [429, '1'])
    assert.match(refused.body.message ?? '', /2 connections to this sandbox/)
    open.push(await send(to('/quiet', other)))
    assert.equal((await call(to('/c', other))).status, 503)
    for (const response of open) response.destroy()
    await eventually(async () => ((await call(to('/c', id))).status === 200 ? true : undefined), 'there is room again')
  })
})

describe('upgrades', () => {
  it('carry a WebSocket both ways, the first message with the head', async () => {
    const socket = new WebSocket(`${server.url.replace('http', 'ws')}/v1/sandboxes/${id}/proxy/3001/`, ['chat'])
    socket.binaryType = 'arraybuffer'
    const messages: unknown[] = []
    let heard: (() => void) | undefined
    socket.addEventListener('message', ({ data }) => {
      messages.push(data)
      heard?.()
    })
    const count = (n: number) =>
      new Promise<void>((resolve) => {
        heard = () => messages.length >= n && resolve()
        heard()
      })
    await count(1)
    assert.equal(messages[0], 'hello')
    assert.equal(socket.protocol, 'chat')
    const big = randomBytes(2_000_000)
    socket.send('text')
    socket.send(big)
    await count(3)
    assert.equal(messages[1], 'text')
    assert.ok(Buffer.from(messages[2] as ArrayBuffer).equals(big))
    const closed = once(socket, 'close')
    socket.close()
    await closed
  })

  it('may be refused by the service, in its own words', async () => {
    const answer = await raw(
      `GET /refuse HTTP/1.1\r\nHost: 3001-${id}.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n`,
    )
    assert.match(answer, /^HTTP\/1\.1 418 Teapot\r\n[\s\S]*short$/)
    const nobody = await raw(
      `GET / HTTP/1.1\r\nHost: 9-${id}.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`,
    )
    assert.match(nobody, /^HTTP\/1\.1 502 [\s\S]*port is not open/)
  })

  it('to any protocol pass, and each half ends on its own', async () => {
    const answer = await raw(
      `GET /tcp HTTP/1.1\r\nHost: 3002-${id}.localhost\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n${'x'.repeat(300_000)}`,
      { half: true },
    )
    assert.match(answer, /^HTTP\/1\.1 101 OK\r\n[\s\S]*\r\n\r\nafter the end: 300000$/)
  })

  it('to HTTP/2 are declined by answering the request', async () => {
    const answer = await raw(
      `GET /x HTTP/1.1\r\nHost: 3000-${id}.localhost\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n`,
    )
    assert.match(answer, /^HTTP\/1\.1 200 /)
    assert.doesNotMatch(answer, /h2c|http2-settings/)
  })

  it('end when the server closes', async () => {
    const other = await inside.serve()
    const socket = new WebSocket(`${other.url.replace('http', 'ws')}/v1/sandboxes/${id}/proxy/3001/`)
    await once(socket, 'message')
    const closed = once(socket, 'close')
    const stopped = other.close(AbortSignal.timeout(30_000))
    await closed
    await stopped
  })
})

describe('a guest that dies', () => {
  it('cuts the answer and the upgraded connection', async () => {
    const doomed = await inside.sandbox()
    const response = await send(path('/sse', 3000, doomed))
    await once(response, 'data')
    const socket = new WebSocket(`${server.url.replace('http', 'ws')}/v1/sandboxes/${doomed}/proxy/3001/`)
    await once(socket, 'message')
    const closed = once(socket, 'close')
    const cut = assert.rejects(text(response))
    const { sandboxes } = inside.parts.project
    await (await sandboxes.delete(doomed, AbortSignal.timeout(60_000))).settled
    await cut
    await closed
  })
})
