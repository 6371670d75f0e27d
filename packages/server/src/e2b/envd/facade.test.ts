import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:http2'
import { type TestContext, test } from 'node:test'
import { IceboxError } from '@icebox/model'
import { basicUser } from './access.ts'
import { dispositionOf, rangeOf } from './download.ts'
import { chosenEncoding, isGzipped } from './encoding.ts'
import { permissionsOf } from './entry.ts'
import type { EnvdOptions } from './facade.ts'
import { keepAliveInterval } from './keep-alive.ts'
import { metadataXattrs } from './metadata.ts'
import { EnvdServer, SANDBOX, signatureOf } from './testing.ts'

async function serve(t: TestContext, options: Partial<EnvdOptions>): Promise<string> {
  const server = await EnvdServer.start({
    find: async () => SANDBOX,
    reach: async () => {
      throw new IceboxError('Internal', 'it must not be reached')
    },
    ...options,
  })
  t.after(() => server.stop())
  return server.url
}

const refusing = (code: 'NotFound' | 'InvalidState' | 'TooManyRequests') => async () => {
  throw new IceboxError(code, 'no')
}

test('a sandbox that is not there is answered as the gateway does', async (t) => {
  const url = await serve(t, { find: refusing('NotFound') })
  for (const path of ['/health', '/files?path=x', '/process.Process/List']) {
    const answer = await fetch(url + path)
    assert.deepEqual(
      [answer.status, await answer.json()],
      [502, { sandboxId: 'sandbox1', message: 'The sandbox was not found', code: 502 }],
    )
  }
})

test('a method that HTTP does not know is refused', async (t) => {
  const server = await EnvdServer.start({
    find: async () => SANDBOX,
    reach: refusing('InvalidState'),
  })
  t.after(() => server.stop())
  const session = connect(server.http2Url)
  t.after(() => session.destroy())
  for (const method of ['FOO', 'constructor', 'toString']) {
    const request = session.request({ ':method': method, ':path': '/envs' })
    const [headers] = await once(request, 'response')
    assert.equal(headers[':status'], 405, method)
    request.close()
  }
})

test('asking for its health resumes no sandbox', async (t) => {
  const paused = await serve(t, { find: async () => ({ ...SANDBOX, running: false }) })
  const answer = await fetch(`${paused}/health`)
  assert.deepEqual(
    [answer.status, await answer.json()],
    [502, { sandboxId: 'sandbox1', message: 'The sandbox was not found running', code: 502 }],
  )
  const healthy = await fetch(`${await serve(t, {})}/health`)
  assert.deepEqual([healthy.status, await healthy.text()], [204, ''])
})

test('a sandbox that cannot be reached is 502, and too much is 429', async (t) => {
  for (const [code, status] of [
    ['NotFound', 502],
    ['InvalidState', 502],
    ['TooManyRequests', 429],
  ] as const) {
    const url = await serve(t, { reach: refusing(code) })
    assert.equal((await fetch(`${url}/envs`)).status, status)
  }
})

test('nothing is reached for who may not or asks for nothing', async (t) => {
  const url = await serve(t, { find: async () => ({ ...SANDBOX, secure: true }) })
  assert.equal((await fetch(`${url}/envs`)).status, 401)
  const headers = { 'x-access-token': SANDBOX.accessToken }
  assert.equal((await fetch(`${url}/init`, { method: 'POST', headers, body: '{}' })).status, 404)
})

test('signatures are those of envd', () => {
  const file = { path: '/a', operation: 'read' as const, user: 'user', token: 'token' }
  // sha256 of "/a:read:user:token" and of "/a:read:user:token:1700000000".
  assert.equal(signatureOf(file), 'v1_MTo2xowazkHy1MgGwYBHxr+gIN82G3dLPTD2iJqUjig')
  assert.equal(signatureOf({ ...file, expiration: '1700000000' }), 'v1_UCn9YiXOlfvWihAKDutW9QI8YP12zuWXKsfbmDG4JrA')
})

test('the user is taken of the Basic scheme alone', () => {
  const basic = (text: string) => `Basic ${Buffer.from(text).toString('base64')}`
  assert.equal(basicUser(basic('user:')), 'user')
  assert.equal(basicUser(basic('user:secret:more')), 'user')
  for (const none of [undefined, '', 'Bearer x', basic('user'), basic(':'), 'Basic ???'])
    assert.equal(basicUser(none), undefined)
})

test('a file is compressed for who asks for that alone or takes nothing else', () => {
  const chosen = (header: string | undefined, plain = false) => {
    try {
      return chosenEncoding(header, plain)
    } catch {
      return 'none'
    }
  }
  for (const header of [
    undefined,
    '',
    'gzip, deflate',
    'gzip, deflate, br',
    'identity',
    '*',
    'gzip;q=0',
    'br',
    'gzip;q=0.5, identity',
  ])
    assert.equal(chosen(header), 'identity', String(header))
  for (const header of [
    'gzip',
    'GZIP',
    'gzip;q=1, *;q=0',
    'gzip;q=0.1, identity;q=0',
    'identity;q=0, *',
    'deflate, gzip, identity;q=0',
  ])
    assert.equal(chosen(header), 'gzip', header)
  for (const header of ['identity;q=0', '*;q=0', 'br, identity;q=0']) assert.equal(chosen(header), 'none', header)
  assert.equal(chosen('gzip', true), 'identity')
  assert.equal(chosen('gzip; q=1,*; q=0', true), 'none')
  assert.deepEqual([isGzipped(undefined), isGzipped('identity'), isGzipped('GZip')], [false, false, true])
  assert.throws(() => isGzipped('br'), { status: 400 })
})

test('names of files are put into the header as they need', () => {
  assert.deepEqual(['plain.tar.gz', '.hidden', 'two words', 'a"quote', 'back\\slash', 'é (1).md'].map(dispositionOf), [
    'inline; filename=plain.tar.gz',
    'inline; filename=.hidden',
    'inline; filename="two words"',
    'inline; filename="a\\"quote"',
    'inline; filename="back\\\\slash"',
    "inline; filename*=utf-8''%C3%A9%20%281%29.md",
  ])
})

test('ranges that make no sense are the whole', () => {
  for (const header of [undefined, '', 'bytes=', 'bytes=-', 'bytes=3-2', 'lines=1-2', 'bytes=1-2,4-5'])
    assert.equal(rangeOf(header, 10), undefined, String(header))
  assert.deepEqual(rangeOf('bytes=-20', 10), { offset: 0, length: 10 })
  assert.throws(() => rangeOf('bytes=0-', 0), { status: 416 })
})

test('permissions are written as Go writes them', () => {
  const written = (type: Parameters<typeof permissionsOf>[0]['type'], mode: number) => permissionsOf({ type, mode })
  assert.deepEqual(
    [
      written('file', 0o644),
      written('directory', 0o755),
      written('symlink', 0o777),
      written('directory', 0o1777),
      written('file', 0o4755),
      written('file', 0o6000),
    ],
    ['-rw-r--r--', 'drwxr-xr-x', 'Lrwxrwxrwx', 'dtrwxrwxrwx', 'urwxr-xr-x', 'ug---------'],
  )
})

test('of metadata that comes twice the first counts', () => {
  const headers = ['X-Metadata-Author', 'first', 'x-metadata-author', 'second', 'X-Metadata-', 'no key', 'X-Other', 'x']
  assert.deepEqual(metadataXattrs(headers), { 'user.e2b.author': 'first' })
})

test('signs of life come as often as asked, within reason', () => {
  const interval = (value: string | undefined) =>
    keepAliveInterval(new Headers(value === undefined ? {} : { 'keepalive-ping-interval': value }))
  assert.deepEqual([undefined, '50', '0', '-1', 'x', '1e99'].map(interval), [
    90_000,
    50_000,
    90_000,
    90_000,
    90_000,
    2 ** 31 - 1,
  ])
})
