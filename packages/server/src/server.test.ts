import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { text } from 'node:stream/consumers'
import { describe, it } from 'node:test'
import { isError, WireError } from '@icebox/model'
import { KEY, serve, type TestServer, until } from './testing.ts'

/** Sends bytes as they are and gives all that comes back. */
async function raw(server: TestServer, request: string): Promise<string> {
  const { hostname, port } = new URL(server.url)
  const socket = connect({ host: hostname, port: Number(port), allowHalfOpen: true })
  socket.end(request)
  return text(socket)
}

async function refused(server: TestServer, method: string, path: string, init: RequestInit = {}) {
  const response = await server.call(method, path, init)
  assert.match(response.headers.get('content-type') ?? '', /^application\/json/)
  assert.ok(response.headers.get('x-request-id'))
  const { code, message, remedy, details } = WireError.parse(await response.json())
  assert.ok(message.length > 0 && remedy.length > 0)
  return { status: response.status, code, message, remedy, details }
}
const json = (body: unknown): RequestInit => ({
  body: typeof body === 'string' ? body : JSON.stringify(body),
  headers: { 'content-type': 'application/json' },
})

describe('an invalid request', () => {
  const cases: [string, string, RequestInit, string | undefined][] = [
    ['POST', '/v1/sandboxes', json('{"template":'), 'body'],
    ['POST', '/v1/sandboxes', json('null'), 'body'],
    ['POST', '/v1/sandboxes', json('[]'), 'body'],
    ['POST', '/v1/sandboxes', json({}), 'body'],
    ['POST', '/v1/sandboxes', {}, 'body'],
    ['POST', '/v1/sandboxes', json({ template: 'a', snapshotId: 'b' }), 'body'],
    ['POST', '/v1/sandboxes', json({ template: 'a', timeout: 0 }), 'body.timeout'],
    ['POST', '/v1/sandboxes', json({ template: 'a', timeout: '1h' }), 'body.timeout'],
    ['POST', '/v1/sandboxes', json({ template: 'a', env: { '1': 'x' } }), 'body.env.1'],
    ['POST', '/v1/sandboxes', json({ template: 'a', name: 'Not OK' }), 'body.name'],
    ['POST', '/v1/sandboxes', json({ image: { uri: '' } }), 'body.image.uri'],
    ['POST', '/v1/sandboxes', json('{"template":"a","__proto__":{"x":1}}'), 'body'],
    ['POST', '/v1/sandboxes', { body: 'template=a', headers: { 'content-type': 'text/plain' } }, undefined],
    ['POST', '/v1/sandboxes/a/fork', json({ count: 0 }), 'body.count'],
    ['POST', '/v1/sandboxes/a/fork', json({ count: 101 }), 'body.count'],
    ['POST', '/v1/sandboxes/a/fork', json({ count: 1.5 }), 'body.count'],
    ['POST', '/v1/sandboxes/a/snapshots', json({ kind: 'disk' }), 'body.kind'],
    ['POST', '/v1/sandboxes/a/rollback', json({}), 'body.snapshotId'],
    ['POST', '/v1/sandboxes/a/renew-expiration', json({ expiresAt: 'tomorrow' }), 'body.expiresAt'],
    ['PATCH', '/v1/sandboxes/a/metadata', json({ k: 1 }), 'body.k'],
    ['GET', '/v1/sandboxes?state=Sleeping', {}, 'query.state.0'],
    ['GET', '/v1/sandboxes?state=Running&state=Sleeping', {}, 'query.state.1'],
    ['GET', '/v1/sandboxes?page=0', {}, 'query.page'],
    ['GET', '/v1/sandboxes?page=', {}, 'query.page'],
    ['GET', '/v1/sandboxes?pageSize=1e2', {}, 'query.pageSize'],
    ['GET', '/v1/snapshots?pageSize=1001', {}, 'query.pageSize'],
    ['GET', '/v1/snapshots?hidden=perhaps', {}, 'query.hidden'],
    ['POST', '/v1/sandboxes/a/execs', json({ argv: [] }), 'body.argv'],
    ['POST', '/v1/sandboxes/a/execs', json({ argv: 'true' }), 'body.argv'],
    ['POST', '/v1/sandboxes/a/execs', json({ argv: ['true'], timeoutMs: -1 }), 'body.timeoutMs'],
    ['GET', '/v1/sandboxes/a/execs/x/output', {}, 'path.exec'],
    ['GET', '/v1/sandboxes/a/execs/1/output?stdoutFrom=-1', {}, 'query.stdoutFrom'],
    ['POST', '/v1/sandboxes/a/execs/1/signal', json({ signal: 'INT' }), 'body.signal'],
    ['POST', '/v1/sandboxes/a/execs/1/resize', json({ cols: 0, rows: 1 }), 'body.cols'],
    ['GET', '/v1/sandboxes/a/files/content', {}, 'query.path'],
    ['PUT', '/v1/sandboxes/a/files/content?path=/x&mode=8192', { body: 'x' }, 'query.mode'],
    ['GET', '/v1/sandboxes/a/files/list?path=/&depth=0', {}, 'query.depth'],
    ['PATCH', '/v1/sandboxes/a/files', json({ path: '/x' }), 'body'],
    ['GET', '/v1/sandboxes/a/ports/0', {}, 'path.port'],
    ['GET', '/v1/sandboxes/a/endpoints/0', {}, 'path.port'],
    ['GET', '/v1/sandboxes/a/endpoints/80?use_server_proxy=perhaps', {}, 'query.use_server_proxy'],
    ['GET', '/v1/sandboxes/a/endpoints/80?expires=soon', {}, 'query.expires'],
    ['GET', '/v1/sandboxes/a/endpoints/80?expires=2000000000', {}, 'query.expires'],
    ['POST', '/v1/sandboxes/a/snapshots', json({ name: 'a/b' }), 'body.name'],
    ['GET', '/v1/sandboxes/a/ports/65536', {}, 'path.port'],
    ['GET', '/v1/sandboxes/a/ports/80', {}, undefined],
    ['POST', '/v1/templates', json({ name: 'base', image: 'x', size: { cpu: 0 } }), 'body.size.cpu'],
    ['POST', '/v1/images', json({ reference: '' }), 'body.reference'],
    ['POST', '/v1/shutdown', json({ mode: 'explode' }), 'body.mode'],
    ['POST', '/v1/snapshots/import?name=Not+OK', { body: 'tar' }, 'query.name'],
  ]
  it('is InvalidArgument, names the field, and never reaches the control plane', async (t) => {
    const server = await serve(t)
    for (const [method, path, init, field] of cases) {
      const refusal = await refused(server, method, path, init)
      const what = `${method} ${path} ${init.body}: ${refusal.message}`
      assert.equal(refusal.code, 'InvalidArgument', what)
      assert.equal(refusal.status, 400, what)
      assert.equal(refusal.details?.field, field, what)
      if (field !== undefined && field !== 'body') assert.ok(refusal.message.includes(field), what)
    }
  })

  it('is TooLarge beyond 1 MiB, whether the length was announced or not', async (t) => {
    const server = await serve(t)
    const big = JSON.stringify({ template: 'a', metadata: { k: 'x'.repeat(1_048_576) } })
    assert.deepEqual([413, 'TooLarge'], await statusAndCode(refused(server, 'POST', '/v1/sandboxes', json(big))))
    const huge = await refused(server, 'POST', '/v1/sandboxes', json(`"${'x'.repeat(16 * 1_048_576)}"`))
    assert.equal(huge.code, 'TooLarge')
    const chunked = await raw(
      server,
      `POST /v1/sandboxes HTTP/1.1\r\nHost: localhost\r\nX-API-Key: ${KEY}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n${big.length.toString(16)}\r\n${big}\r\n0\r\n\r\n`,
    )
    assert.match(chunked, /^HTTP\/1\.1 413 [\s\S]*"code":"TooLarge"/)
  })

  it('is TooManyRequests while bodies that have not arrived whole hold what a project may', async (t) => {
    const server = await serve(t)
    const { port } = new URL(server.url)
    const head = `POST /v1/sandboxes HTTP/1.1\r\nHost: localhost\r\nX-API-Key: ${KEY}\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n`
    const sockets = Array.from({ length: 80 }, () => connect(Number(port), '127.0.0.1'))
    t.after(() => {
      for (const socket of sockets) socket.destroy()
    })
    const refused = Promise.any(
      sockets.map(async (socket) => {
        socket.on('error', () => undefined)
        socket.write(`${head}${' '.repeat(999_999)}`)
        const [answer] = await once(socket, 'data')
        return String(answer)
      }),
    )
    assert.match(await refused, /^HTTP\/1\.1 429 [\s\S]*requests of project default/)
    for (const socket of sockets) socket.destroy()
    await until(() => server.log.filter(({ clientGone }) => clientGone).length > 60)
    assert.equal((await server.call('POST', '/v1/sandboxes', json({ template: 7 }))).status, 400)
  })

  it('is TooManyRequests for who was refused too often, and for nobody with a key', async (t) => {
    const rate = { burst: 5, perSecond: 0.001 }
    const server = await serve(t, { strangers: { each: rate, inAll: { burst: 1_000, perSecond: 1 } } })
    const ask = (path: string, headers: Record<string, string> = {}) => fetch(server.url + path, { headers })
    for (let refusal = 0; refusal < 5; refusal++) assert.equal((await ask('/v1/sandboxes')).status, 401)
    for (const path of ['/v1/sandboxes', `/files?path=/x&signature=v1_${'x'.repeat(43)}`]) {
      const refused = await ask(path, { 'x-api-key': 'e2b_wrong' })
      assert.equal(refused.status, 429, path)
      assert.ok(Number(refused.headers.get('retry-after')) >= 1, path)
    }
    assert.equal((await server.call('GET', '/v1/nothing')).status, 404)
    assert.equal((await ask('/v1/sandboxes', { 'x-forwarded-for': '192.0.2.1' })).status, 401)
  })

  it('is said of a signed file to another host before anything is looked for', async (t) => {
    const server = await serve(t)
    const answer = await raw(
      server,
      `GET /files?path=/x&signature=v1_${'x'.repeat(43)} HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n`,
    )
    assert.match(answer, /^HTTP\/1\.1 403 /)
  })

  it('is NotFound when there is no such route or method', async (t) => {
    const server = await serve(t)
    for (const [method, path] of [
      ['GET', '/'],
      ['GET', '/v9/sandboxes'],
      ['PUT', '/v1/sandboxes'],
      ['GET', '/v1/sandboxes/a/b/c/d'],
    ] as const)
      assert.deepEqual([404, 'NotFound'], await statusAndCode(refused(server, method, path)), path)
    const { message } = await refused(server, 'PUT', '/v1/sandboxes?x=1')
    assert.equal(message, 'there is no PUT /v1/sandboxes')
  })

  it('is answered when it is no HTTP at all, and the server goes on', async (t) => {
    const server = await serve(t)
    const answer = await raw(server, 'SSH-2.0-OpenSSH\r\n\r\n')
    assert.match(answer, /^HTTP\/1\.1 400 /)
    assert.match(answer, /"code":"InvalidArgument"/)
    const bad = await raw(
      server,
      `GET /v1/%zz HTTP/1.1\r\nHost: localhost\r\nX-API-Key: ${KEY}\r\nConnection: close\r\n\r\n`,
    )
    assert.match(bad, /^HTTP\/1\.1 400 [\s\S]*x-request-id: [\s\S]*"code":"InvalidArgument"/)
    assert.equal((await server.call('GET', '/health')).status, 200)
  })
})

const statusAndCode = async (refusal: ReturnType<typeof refused>) => {
  const { status, code } = await refusal
  return [status, code]
}

describe('a create that asks for what Icebox does not do', () => {
  const image = { uri: 'debian:bookworm' }
  const refusedFields: [Record<string, unknown>, string][] = [
    [{ volumes: [{ name: 'v', mountPath: '/v' }] }, 'body.volumes'],
    [{ networkPolicy: { defaultAction: 'allow' } }, 'body.networkPolicy'],
    [{ networkPolicy: { egress: [{ action: 'allow', target: 'example.com' }] } }, 'body.networkPolicy'],
    [{ platform: { os: 'linux', arch: 'arm64' } }, 'body.platform'],
    [{ platform: { os: 'windows', arch: 'amd64' } }, 'body.platform'],
    [{ platform: 'linux/amd64' }, 'body.platform'],
    [{ credentialProxy: { enabled: true } }, 'body.credentialProxy'],
    [{ lifecycle: { preStart: { command: ['true'] } } }, 'body.lifecycle'],
    [{ image: { ...image, auth: { username: 'u', password: 'p' } } }, 'body.image.auth'],
    [{ extensions: { poolRef: 'p' } }, 'body.extensions'],
    [{ extensions: { 'access.renew.extend.seconds': '300' } }, 'body.extensions'],
  ]
  it('is refused in words', async (t) => {
    const server = await serve(t)
    for (const [extra, field] of refusedFields) {
      const refusal = await refused(server, 'POST', '/v1/sandboxes', json({ image, ...extra }))
      assert.equal(refusal.code, 'InvalidArgument', field)
      assert.equal(refusal.details?.field, field)
      assert.ok(refusal.message.startsWith(`${field}: `), refusal.message)
    }
  })

  it('goes on to the control plane when the field asks for nothing, or for what is so anyway', async (t) => {
    const server = await serve(t)
    for (const extra of [
      { volumes: [] },
      { volumes: null },
      { networkPolicy: {} },
      { networkPolicy: { defaultAction: 'deny', egress: [] } },
      { networkPolicy: { egress: [{ action: 'deny', target: '*' }] } },
      { platform: { os: 'linux', arch: 'amd64' } },
      { platform: null },
      { credentialProxy: { enabled: false } },
      { secureAccess: false },
      { secureAccess: true },
      { extensions: { 'storage.id': 'x' } },
      { somethingNew: { of: 'a later client' } },
    ]) {
      const refusal = await refused(server, 'POST', '/v1/sandboxes', json({ image, ...extra }))
      assert.match(refusal.message, /the control plane was asked for sandboxes/, JSON.stringify(extra))
    }
  })
})

describe('a client that shows its key as OpenSandbox has it', () => {
  const image = { uri: 'debian:bookworm' }
  const create = { image, entrypoint: ['true'] }
  const theirs = (body: unknown): RequestInit => ({
    body: JSON.stringify(body),
    headers: { 'content-type': 'application/json', 'open-sandbox-api-key': KEY },
  })
  const refusals: [string, string, unknown, string][] = [
    ['POST', '/v1/sandboxes', { image }, 'body.entrypoint'],
    ['POST', '/v1/sandboxes', { ...create, metadata: { 'a b': 'x' } }, 'body.metadata.a b'],
    ['POST', '/v1/sandboxes', { ...create, metadata: { k: 'x'.repeat(64) } }, 'body.metadata.k'],
    ['POST', '/v1/sandboxes', { ...create, metadata: { k: '-x' } }, 'body.metadata.k'],
    ['POST', '/v1/sandboxes', { ...create, metadata: { 'opensandbox.io/k': 'x' } }, 'body.metadata.opensandbox.io/k'],
    ['POST', '/v1/sandboxes', { ...create, metadata: { 'Bad_/k': 'x' } }, 'body.metadata.Bad_/k'],
    ['PATCH', '/v1/sandboxes/a/metadata', { 'opensandbox.io/k': null }, 'body.opensandbox.io/k'],
    ['PATCH', '/v1/sandboxes/a/metadata', { k: 'a/b' }, 'body.k'],
  ]
  it('is held to the stricter rules of that, others are not', async (t) => {
    const server = await serve(t)
    for (const [method, path, body, field] of refusals) {
      const refusal = await refused(server, method, path, theirs(body))
      assert.deepEqual([refusal.code, refusal.details?.field], ['InvalidArgument', field], refusal.message)
      assert.match((await refused(server, method, path, json(body))).message, /the control plane was asked/, field)
    }
    for (const metadata of [{}, { k: '' }, { 'example.com/team': 'a_b.c-D', version: '2.0' }])
      assert.match(
        (await refused(server, 'POST', '/v1/sandboxes', theirs({ ...create, metadata }))).message,
        /the control plane was asked/,
      )
  })

  it('may tell what it likes of itself', async (t) => {
    const server = await serve(t)
    assert.equal((await server.call('POST', '/v1/metrics/events', theirs({ eventType: 'sandbox.create' }))).status, 204)
  })
})

describe('an answer before the end of the body', () => {
  it('reaches the client, whose connection can be used again', async (t) => {
    const server = await serve(t)
    const { hostname, port } = new URL(server.url)
    const socket = connect({ host: hostname, port: Number(port) })
    const body = Buffer.alloc(4 * 1_048_576)
    // The control plane is asked before anything of the body has been read.
    socket.write(
      `PUT /v1/sandboxes/a/files/content?path=/x HTTP/1.1\r\nHost: localhost\r\nX-API-Key: ${KEY}\r\nContent-Length: ${body.length}\r\n\r\n`,
    )
    const [first] = await once(socket, 'data')
    assert.match(String(first), /^HTTP\/1\.1 500 [\s\S]*the control plane was asked/)
    socket.write(body)
    socket.end(`GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`)
    assert.match(await text(socket), /^HTTP\/1\.1 200 /)
  })
})

describe('an empty body', () => {
  // The control plane here answers nothing; that it was asked shows that the body was let through.
  for (const path of [
    '/v1/sandboxes/a/pause',
    '/v1/sandboxes/a/resume',
    '/v1/sandboxes/a/snapshots',
    '/v1/sandboxes/a/fork',
  ])
    it(`is accepted by POST ${path}, with and without a Content-Type`, async (t) => {
      const server = await serve(t)
      const head = `POST ${path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: ${KEY}\r\nConnection: close\r\n`
      for (const rest of [
        '',
        'Content-Length: 0\r\n',
        'Content-Type: application/json\r\nContent-Length: 0\r\n',
        'Content-Type: application/json\r\n',
        'Content-Type: application/json; charset=utf-8\r\nContent-Length: 2\r\n\r\n{}',
      ])
        assert.match(await raw(server, `${head}${rest}\r\n`), /the control plane was asked for/, rest)
    })

  it('is accepted by DELETE with a Content-Type', async (t) => {
    const server = await serve(t)
    const { message } = await refused(server, 'DELETE', '/v1/sandboxes/a', {
      headers: { 'content-type': 'application/json' },
    })
    assert.match(message, /the control plane was asked for/)
  })

  it('is accepted as application/merge-patch+json', async (t) => {
    const server = await serve(t)
    const { message } = await refused(server, 'PATCH', '/v1/sandboxes/a/metadata', {
      body: '{"k":null}',
      headers: { 'content-type': 'application/merge-patch+json' },
    })
    assert.match(message, /the control plane was asked for/)
  })
})

describe('X-Request-ID', () => {
  it('is echoed, on errors too, and made when absent or unfit', async (t) => {
    const server = await serve(t)
    const id = async (path: string, given?: string) =>
      (await server.call('GET', path, given === undefined ? {} : { headers: { 'x-request-id': given } })).headers.get(
        'x-request-id',
      )
    assert.equal(await id('/v1/info', 'mine-1'), 'mine-1')
    assert.equal(await id('/nothing', 'mine-2'), 'mine-2')
    const made = /^[0-9a-f-]{36}$/
    assert.match((await id('/v1/info')) ?? '', made)
    assert.match((await id('/v1/info', 'with space')) ?? '', made)
    assert.match((await id('/v1/info', 'x'.repeat(129))) ?? '', made)
  })
})

describe('the log', () => {
  it('has one line per request that fails, without keys or bodies', async (t) => {
    const server = await serve(t)
    await server.call('GET', '/v1/info')
    await server.call('POST', '/v1/sandboxes', {
      ...json({ template: 7, env: { S: 'secret' } }),
      headers: { 'x-api-key': 'guess', 'x-request-id': 'r1' },
    })
    await server.call('POST', '/v1/sandboxes/web1/fork', {
      ...json({ count: 0, env: { S: 'secret' } }),
      headers: { 'content-type': 'application/json', 'x-request-id': 'r2' },
    })
    await until(() => server.log.some(({ requestId }) => requestId === 'r2'))
    const lines = server.log.filter(({ requestId }) => requestId !== undefined)
    assert.deepEqual(
      lines.map(({ requestId, operation, resource, status, code }) => ({
        requestId,
        operation,
        resource,
        status,
        code,
      })),
      [
        { requestId: 'r1', operation: 'createSandbox', resource: undefined, status: 401, code: 'Unauthorized' },
        { requestId: 'r2', operation: 'forkSandbox', resource: 'web1', status: 400, code: 'InvalidArgument' },
      ],
    )
    for (const { ms, level } of lines) {
      assert.equal(typeof ms, 'number')
      assert.equal(level, 'info')
    }
    assert.ok(!JSON.stringify(server.log).includes('secret'))
    assert.ok(!JSON.stringify(server.log).includes('guess'))
    assert.ok(!JSON.stringify(server.log).includes(KEY))
  })

  it('has the stack of what should not happen', async (t) => {
    const server = await serve(t)
    assert.equal((await server.call('GET', '/v1/templates')).status, 500)
    await until(() => server.log.some(({ level }) => level === 'error'))
    assert.match(String(server.log.find(({ level }) => level === 'error')?.stack), /testing\.ts/)
  })
})

describe('listening', () => {
  it('says which port is taken, and what to do', async (t) => {
    const { url } = await serve(t)
    const port = Number(new URL(url).port)
    await assert.rejects(serve(t, { listen: { host: '127.0.0.1', port } }), (error) => {
      assert.ok(isError(error, 'Conflict'))
      assert.match(error.message, new RegExp(`port ${port} of 127\\.0\\.0\\.1 is in use`))
      assert.match(error.remedy, /--listen/)
      return true
    })
  })

  it('refuses an address that is not of this machine', async (t) => {
    await assert.rejects(serve(t, { listen: { host: '203.0.113.1', port: 0 } }), (error) => {
      assert.ok(isError(error, 'InvalidArgument'))
      return true
    })
  })

  it('works on localhost and on IPv6', async (t) => {
    const local = await serve(t, { listen: { host: 'localhost', port: 0 } })
    assert.equal((await local.call('GET', '/v1/info')).status, 200)
    const six = await serve(t, { listen: { host: '::1', port: 0 } })
    assert.match(six.url, /^http:\/\/\[::1\]:\d+$/)
    assert.equal((await six.call('GET', '/v1/info')).status, 200)
  })
})

describe('an upgrade', () => {
  const upgrade = (path: string, key: string, protocol = 'tcp', extra = '') =>
    `GET ${path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: ${key}\r\nConnection: Upgrade\r\nUpgrade: ${protocol}\r\n${extra}\r\n`

  it('goes through the same checks as any request, and the refused connection is closed', async (t) => {
    const server = await serve(t)
    const path = '/v1/sandboxes/a/ports/80'
    assert.match(await raw(server, upgrade(path, 'wrong')), /^HTTP\/1\.1 401 [\s\S]*"Unauthorized"/)
    assert.match(await raw(server, upgrade(path, KEY, 'tcp', 'Origin: http://evil.example\r\n')), /^HTTP\/1\.1 403 /)
    assert.match(await raw(server, upgrade('/v1/sandboxes/a/ports/0', KEY)), /^HTTP\/1\.1 400 [\s\S]*path\.port/)
    assert.match(await raw(server, upgrade('/v1/nothing', KEY)), /^HTTP\/1\.1 404 /)
    assert.match(await raw(server, upgrade(path, KEY)), /^HTTP\/1\.1 500 [\s\S]*control plane was asked/)
    assert.match(await raw(server, upgrade('/v1/info', KEY)), /^HTTP\/1\.1 200 [\s\S]*0\.0\.0-test/)
  })

  it('to another protocol is declined by answering the request', async (t) => {
    const server = await serve(t)
    assert.match(
      await raw(server, upgrade('/v1/info', KEY, 'h2c', 'Connection: close\r\n')),
      /^HTTP\/1\.1 200 [\s\S]*0\.0\.0-test/,
    )
  })
})

describe('the end', () => {
  it('is asked for by POST /v1/shutdown, which pauses by default', async (t) => {
    const server = await serve(t)
    const response = await server.call('POST', '/v1/shutdown')
    assert.equal(response.status, 202)
    assert.deepEqual(await response.json(), { mode: 'pause' })
    await until(() => server.shutdowns.length > 0)
    await (await server.call('POST', '/v1/shutdown', json({ mode: 'keep' }))).json()
    await until(() => server.shutdowns.length > 1)
    assert.deepEqual(server.shutdowns, ['pause', 'keep'])
  })

  it('lets what is under way finish and refuses what comes after it', async (t) => {
    const server = await serve(t)
    const { hostname, port } = new URL(server.url)
    const socket = connect({ host: hostname, port: Number(port) })
    const received = text(socket)
    const head = `Host: localhost\r\nX-API-Key: ${KEY}\r\n`
    const body = '{"template":"a"}'
    socket.write(
      `POST /v1/sandboxes HTTP/1.1\r\n${head}Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n`,
    )
    // Its head has been read once a later request of another connection is answered.
    await once(socket, 'ready')
    await server.call('GET', '/health')
    const closed = server.close(AbortSignal.timeout(60_000))
    await assert.rejects(fetch(`${server.url}/health`))
    socket.write(`${body}GET /v1/info HTTP/1.1\r\n${head}\r\n`)
    await closed
    const answers = await received
    assert.match(answers, /^HTTP\/1\.1 500 [\s\S]*the control plane was asked for/)
    assert.doesNotMatch(answers, /0\.0\.0-test/)
  })

  it('cuts what does not finish in time', async (t) => {
    const server = await serve(t)
    const { hostname, port } = new URL(server.url)
    const socket = connect({ host: hostname, port: Number(port) })
    await once(socket, 'connect')
    const gone = once(socket, 'close')
    socket.on('error', () => undefined).resume()
    socket.write(
      `POST /v1/sandboxes HTTP/1.1\r\nHost: localhost\r\nX-API-Key: ${KEY}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{`,
    )
    await server.call('GET', '/health')
    await server.close(AbortSignal.abort())
    await gone
  })
})
