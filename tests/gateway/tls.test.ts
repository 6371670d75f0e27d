import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { copyFile, mkdtemp, rm } from 'node:fs/promises'
import { type ClientHttp2Session, connect, type IncomingHttpHeaders } from 'node:http2'
import { Agent, request } from 'node:https'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { after, before, describe, it } from 'node:test'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import { promisify } from 'node:util'
import type { Server } from '@icebox/server'
import { KEY } from '../faults/parts.ts'
import { eventually } from '../server-process.ts'
import { call, Inside } from './inside.ts'

/** HTTPS, HTTP/2 and HTTP/1.1, with façades on their ports. */

let inside: Inside
let server: Server
let id: string
let directory: string
const log: Record<string, unknown>[] = []
const files = () => ({ cert: join(directory, 'cert.pem'), key: join(directory, 'key.pem') })
const sessions: ClientHttp2Session[] = []

async function certificate(name: string): Promise<{ cert: string; key: string }> {
  const [cert, key] = [join(directory, `${name}-cert.pem`), join(directory, `${name}-key.pem`)]
  const subject = ['-subj', `/CN=${name}`, '-addext', 'subjectAltName=DNS:ice.example,DNS:*.ice.example']
  const words = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2']
  await promisify(execFile)('openssl', [...words, ...subject, '-keyout', key, '-out', cert])
  return { cert, key }
}

async function install(name: string): Promise<void> {
  const { cert, key } = await certificate(name)
  await copyFile(key, files().key)
  await copyFile(cert, files().cert)
}

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'icebox-tls-'))
  await install('first')
  inside = await Inside.open()
  id = await inside.sandbox()
  server = await inside.serve({
    tls: files(),
    log: { write: (line) => log.push(JSON.parse(line)) },
    domains: ['ice.example'],
    corsOrigins: ['https://app.example'],
    gateway: {
      facades: new Map([
        [
          49_983,
          async (incoming, response, at) => {
            const body = await text(incoming)
            if (at.path === '/fail') throw new Error('on purpose')
            response.writeHead(200, { 'content-type': 'application/json' })
            response.end(JSON.stringify({ ...at, body }))
          },
        ],
      ]),
    },
  })
})
after(async () => {
  for (const session of sessions) session.destroy()
  await inside?.[Symbol.asyncDispose]()
  await rm(directory, { recursive: true, force: true })
})

function session(): ClientHttp2Session {
  const opened = connect(server.url, { rejectUnauthorized: false, servername: 'ice.example' })
  sessions.push(opened)
  return opened
}

async function ask(
  over: ClientHttp2Session,
  headers: Record<string, string>,
  body?: Buffer,
): Promise<{ headers: IncomingHttpHeaders; status: number; text: string; trailers: IncomingHttpHeaders }> {
  const stream = over.request({ ':authority': `3000-${id}.ice.example`, ...headers }, { endStream: body === undefined })
  if (body !== undefined) stream.end(body)
  let trailers: IncomingHttpHeaders = {}
  stream.on('trailers', (found) => {
    trailers = found
  })
  const [answered] = (await once(stream, 'response')) as [IncomingHttpHeaders & { ':status'?: number }]
  return { headers: answered, status: answered[':status'] ?? 0, text: await text(stream), trailers }
}

describe('HTTP/2', () => {
  it('reaches the API and the ports, many at once on one connection', async () => {
    const over = session()
    const info = await ask(over, { ':authority': 'api.ice.example', ':path': '/v1/info', 'x-api-key': KEY })
    assert.equal(info.status, 200)
    assert.ok(info.text.includes('"version"'))
    const answers = await Promise.all(Array.from({ length: 50 }, (_, n) => ask(over, { ':path': `/n?${n}` })))
    answers.forEach(({ status, text }, n) => {
      assert.equal(status, 200)
      assert.equal(JSON.parse(text).path, `/n?${n}`)
    })
  })

  it('passes bodies, cookies and trailers on, and what is for one hop not', async () => {
    const over = session()
    const body = Buffer.alloc(300_000, 'x')
    const posted = await ask(over, { ':method': 'POST', ':path': '/b', cookie: 'a=1; b=2', te: 'trailers' }, body)
    const { size, headers } = JSON.parse(posted.text)
    assert.equal(size, body.length)
    const seen = new Map<string, string>(headers)
    assert.equal(seen.get('cookie'), 'a=1; b=2')
    assert.equal(seen.get('host'), `3000-${id}.ice.example`)
    assert.equal(seen.get('x-forwarded-proto'), 'https')
    assert.equal(seen.get('te'), 'trailers')
    const empty = await ask(over, { ':method': 'DELETE', ':path': '/b' })
    assert.equal(JSON.parse(empty.text).size, 0)
    const echoed = await ask(over, { ':method': 'POST', ':path': '/echo-stream' }, body)
    assert.equal(echoed.text.length, body.length)
    assert.match(String(echoed.trailers['x-sum']), /^[0-9a-f]{64}$/)
    const hop = await ask(over, { ':path': '/hop' })
    assert.equal(hop.headers['x-private'], undefined)
    assert.equal(hop.headers['keep-alive'], undefined)
    assert.deepEqual(hop.headers['set-cookie'], ['a=1', 'b=2'])
  })

  it('is told of what is not there, and of an answer that broke off', async () => {
    const over = session()
    const closed = await ask(over, { ':authority': `9-${id}.ice.example`, ':path': '/' })
    assert.equal(closed.status, 502)
    assert.equal(JSON.parse(closed.text).port, 9)
    await assert.rejects(ask(over, { ':path': '/half' }), /INTERNAL_ERROR/)
    assert.equal((await ask(over, { ':path': '/x' })).status, 200)
    const foreign = await ask(over, { ':authority': 'evil.example', ':path': '/v1/info', 'x-api-key': KEY })
    assert.equal(foreign.status, 403)
  })
})

describe('HTTPS', () => {
  it('speaks HTTP/1.1, also upgraded, and plain HTTP on loopback', async () => {
    const { port } = new URL(server.url)
    const outgoing = request({
      host: '127.0.0.1',
      port,
      path: '/x',
      headers: { host: `3000-${id}.ice.example` },
      rejectUnauthorized: false,
      agent: new Agent(),
    })
    outgoing.end()
    const [response] = await once(outgoing, 'response')
    assert.equal(JSON.parse(await text(response)).path, '/x')
    const socket = connectTls({ port: Number(port), rejectUnauthorized: false })
    socket.write(`GET /tcp HTTP/1.1\r\nHost: 3002-${id}.ice.example\r\nConnection: Upgrade\r\nUpgrade: raw\r\n\r\n`)
    assert.match(String((await once(socket, 'data'))[0]), /^HTTP\/1\.1 101 OK/)
    socket.destroy()
    assert.match(server.localUrl, /^http:\/\/127\.0\.0\.1:/)
    assert.equal((await call(`${server.localUrl}/v1/info`, { headers: { 'x-api-key': KEY } })).status, 200)
  })

  it('takes a new certificate when its files change, and keeps the old one when they are bad', async () => {
    const name = async () => {
      const socket: TLSSocket = connectTls({ port: Number(new URL(server.url).port), rejectUnauthorized: false })
      await once(socket, 'secureConnect')
      const { subject } = socket.getPeerCertificate()
      socket.destroy()
      return subject.CN
    }
    assert.equal(await name(), 'first')
    const { key } = await certificate('other')
    await copyFile(key, files().key)
    const told = () => log.some(({ event }) => event === 'certificate.unusable')
    await eventually(async () => told() || undefined, 'the log says that it cannot be used')
    assert.equal(await name(), 'first')
    await install('second')
    await eventually(async () => ((await name()) === 'second' ? true : undefined), 'the new certificate is used')
  })

  it('is not begun with files that do not belong together', async () => {
    const [one, other] = [await certificate('one'), await certificate('two')]
    await assert.rejects(inside.serve({ tls: { cert: one.cert, key: other.key } }), { code: 'InvalidArgument' })
    await assert.rejects(inside.serve({ tls: { cert: join(directory, 'none'), key: one.key } }), {
      code: 'InvalidArgument',
    })
  })
})

describe('a façade', () => {
  const headers = () => ({ 'e2b-sandbox-id': id, 'e2b-sandbox-port': '49983' })
  it('gets what is for its port instead of the guest, and is told whether a key is right', async () => {
    for (const [more, key] of [
      [{}, false],
      [{ 'x-api-key': KEY }, true],
      [{ 'x-api-key': 'wrong' }, false],
    ] as const) {
      const { status, text: content } = await call(
        `${server.localUrl}/files?path=x`,
        { method: 'POST', headers: { ...headers(), ...more } },
        'body',
      )
      assert.equal(status, 200)
      assert.deepEqual(JSON.parse(content), { sandbox: id, path: '/files?path=x', key, body: 'body' })
    }
    // Its port needs no traffic token, and what it does not handle is answered for it.
    const closed = { ...headers(), 'e2b-sandbox-id': await inside.sandbox({ publicTraffic: false }) }
    assert.equal((await call(`${server.localUrl}/`, { headers: closed })).status, 200)
    assert.equal((await call(`${server.localUrl}/fail`, { headers: headers() })).status, 500)
  })

  it('is for web pages of the configured origins alone, as the API is', async () => {
    const origin = 'https://app.example'
    for (const [path, more] of [
      ['/files', headers()],
      ['/v1/info', {}],
    ] as const) {
      const asked = await call(`${server.localUrl}${path}`, {
        method: 'OPTIONS',
        headers: {
          ...more,
          origin,
          'access-control-request-method': 'POST',
          'access-control-request-headers': 'x-api-key, content-type',
        },
      })
      assert.equal(asked.status, 204)
      assert.equal(asked.headers['access-control-allow-origin'], origin)
      assert.equal(asked.headers['access-control-allow-headers'], 'x-api-key, content-type')
      const got = await call(`${server.localUrl}${path}`, { headers: { ...more, origin, 'x-api-key': KEY } })
      assert.deepEqual([got.status, got.headers['access-control-allow-origin']], [200, origin])
      const evil = { ...more, origin: 'https://evil.example', 'x-api-key': KEY }
      assert.equal((await call(`${server.localUrl}${path}`, { headers: evil })).status, 403)
    }
    // What a service of the user's thinks of origins is its own matter.
    const own = { host: `3000-${id}.localhost`, origin: 'https://evil.example' }
    const { status, headers: answered } = await call(`${server.localUrl}/`, { method: 'OPTIONS', headers: own })
    assert.deepEqual([status, answered['access-control-allow-origin']], [200, undefined])
  })
})
