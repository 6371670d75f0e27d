import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { request } from 'node:http'
import { after, before, describe, test } from 'node:test'
import { gunzipSync, gzipSync } from 'node:zlib'
import { z } from 'zod'
import { signatureOf } from '../../packages/server/src/e2b/envd/testing.ts'
import { EnvdSandboxUnderTest } from './testing.ts'

const signal = AbortSignal.timeout(60_000)

const Failure = z.strictObject({ code: z.number(), message: z.string() })

describe('contents of files by envd', { timeout: 60_000 }, () => {
  let envd: EnvdSandboxUnderTest
  before(async () => {
    envd = await EnvdSandboxUnderTest.start(signal)
  })
  after(() => envd?.stop())

  const octets = (path: string, body: RequestInit['body'], headers: Record<string, string> = {}) =>
    envd.fetch(`/files?${new URLSearchParams({ path })}`, {
      method: 'POST',
      headers: { 'content-type': 'application/octet-stream', ...headers },
      body: body ?? null,
      signal,
    })
  const read = (path: string, headers: Record<string, string> = {}) =>
    envd.fetch(`/files?${new URLSearchParams({ path })}`, { headers, signal })
  const bytes = async (answer: Response) => Buffer.from(await answer.arrayBuffer())
  const failed = async (answer: Response, status: number, message: RegExp) => {
    const body = Failure.parse(await answer.json())
    assert.deepEqual([answer.status, body.code], [status, status], JSON.stringify(body))
    assert.match(body.message, message)
  }

  test('what was written is read again, by any way of writing', async () => {
    const content = randomBytes(3_000_000)
    const plain = await octets('/srv/deep/er/file.bin', content)
    assert.deepEqual(
      [plain.status, await plain.json()],
      [200, [{ path: '/srv/deep/er/file.bin', name: 'file.bin', type: 'file' }]],
    )
    const answer = await read('/srv/deep/er/file.bin')
    assert.deepEqual(
      ['content-type', 'content-length', 'content-disposition'].map((name) => answer.headers.get(name)),
      ['application/octet-stream', '3000000', 'inline; filename=file.bin'],
    )
    assert.ok((await bytes(answer)).equals(content))
    assert.equal(
      await envd.shell('stat -c "%U %G %a" /srv/deep/er /srv/deep/er/file.bin', signal),
      'user user 755\nuser user 644\n',
    )

    const zipped = await octets('zipped', gzipSync(content), { 'content-encoding': 'gzip' })
    assert.deepEqual(await zipped.json(), [{ path: '/home/user/zipped', name: 'zipped', type: 'file' }])
    const packed = await new Promise<Buffer>((resolve, reject) => {
      const options = { headers: { 'accept-encoding': 'gzip' }, signal }
      request(`${envd.server.url}/files?path=zipped`, options, (message) => {
        assert.equal(message.headers['content-encoding'], 'gzip')
        message.toArray().then((parts) => resolve(Buffer.concat(parts)), reject)
      })
        .on('error', reject)
        .end()
    })
    assert.ok(gunzipSync(packed).equals(content))

    const form = new FormData()
    form.append('file', new Blob([content]), 'ignored')
    const one = await envd.fetch('/files?path=~/from-form.txt', { method: 'POST', body: form })
    assert.deepEqual(await one.json(), [{ path: '/home/user/from-form.txt', name: 'from-form.txt', type: 'file' }])
    const text = await read('from-form.txt')
    assert.equal(text.headers.get('content-type'), 'text/plain; charset=utf-8')
    assert.ok((await bytes(text)).equals(content))
    const empty = await octets('empty', '')
    assert.equal(empty.status, 200)
    assert.equal((await read('empty')).headers.get('content-length'), '0')
    // Which says that it has no bytes.
    assert.match(await (await read('/proc/self/status')).text(), /^Name:/)
  })

  test('a form has any number of files, each named by its path', async () => {
    const form = new FormData()
    const names = Array.from({ length: 300 }, (_, index) => `/home/user/many/${index} é x.txt`)
    for (const [index, name] of names.entries())
      form.append('file', new Blob([index === 7 ? Buffer.alloc(2_000_000, 'x') : `content ${index}`]), name)
    form.append('note', 'not a file')
    const answer = await envd.fetch('/files', { method: 'POST', body: form, signal })
    const written = z.array(z.object({ path: z.string() })).parse(await answer.json())
    assert.deepEqual(
      written.map(({ path }) => path),
      names,
    )
    assert.equal(await (await read(names[299] ?? '')).text(), 'content 299')
    assert.equal((await bytes(await read(names[7] ?? ''))).length, 2_000_000)
    const twice = new FormData()
    for (const text of ['1', '2']) twice.append('file', new Blob([text]), '/home/user/twice')
    await failed(await envd.fetch('/files', { method: 'POST', body: twice }), 400, /same path/)
  })

  test('many upload at once, also to one path, and nothing is mixed', async () => {
    const parts = Array.from({ length: 12 }, (_, index) => Buffer.alloc(400_000, String.fromCharCode(97 + index)))
    await Promise.all(parts.map((part, index) => octets(`at-once/${index}`, part)))
    for (const [index, part] of parts.entries()) assert.ok((await bytes(await read(`at-once/${index}`))).equals(part))
    await Promise.all(parts.map((part) => octets('at-once/same', part)))
    const same = await bytes(await read('at-once/same'))
    assert.ok(parts.some((part) => part.equals(same)))
    assert.equal(await envd.shell('ls -A /home/user/at-once | grep -c icebox', signal), '0\n')
  })

  test('modes and owners: a new file is the user’s, an old one keeps its mode', async () => {
    await envd.shell('cd /home/user; echo old > script; chmod 755 script; chown root script', signal)
    assert.equal((await octets('script', 'new')).status, 200)
    assert.equal(await envd.shell('stat -c "%U %a" /home/user/script; cat /home/user/script', signal), 'user 755\nnew')
    const asRoot = await envd.fetch('/files?path=owned&username=root', {
      method: 'POST',
      headers: { 'content-type': 'application/octet-stream' },
      body: 'x',
    })
    assert.deepEqual(await asRoot.json(), [{ path: '/root/owned', name: 'owned', type: 'file' }])
    assert.equal(await envd.shell('stat -c %U /root/owned', signal), 'root\n')
    assert.equal(await (await envd.fetch('/files?path=/root/owned')).text(), 'x')
  })

  test('refusals have envd’s shape, change nothing and leave the connection usable', async () => {
    await failed(await read('/nowhere/file'), 404, /path '\/nowhere\/file' does not exist/)
    await failed(await read('/etc'), 400, /path '\/etc' is a directory/)
    await failed(await octets('/etc', 'x'), 400, /./)
    await failed(await envd.fetch('/files?path=/etc/passwd&username=stranger'), 401, /error looking up user.*stranger/)
    await failed(await octets('x', 'x', { 'content-encoding': 'br' }), 400, /unsupported Content-Encoding/)
    await failed(await octets('x', 'not gzip', { 'content-encoding': 'gzip' }), 400, /decompressing/)
    await failed(
      await octets('x', '{}', { 'content-type': 'application/json' }),
      400,
      /content type .*: send multipart/,
    )
    await failed(await octets('x', 'x', { 'content-type': 'multipart/form-data' }), 400, /error reading form/)
    await failed(
      await octets('x', '--b\r\nContent-Disposition: form-data; name="file"; filename="/home/user/cut"\r\n\r\nhalf', {
        'content-type': 'multipart/form-data; boundary=b',
      }),
      400,
      /error reading form/,
    )
    const pathless = await envd.fetch('/files', {
      method: 'POST',
      headers: { 'content-type': 'application/octet-stream' },
      body: 'x',
    })
    await failed(pathless, 400, /needs the query parameter path/)
    await failed(await read('script', { 'accept-encoding': 'br, identity;q=0' }), 406, /no acceptable encoding/)
    assert.equal(await envd.shell('ls -A /home/user | grep -E "^(x|cut|[.]icebox.*)$"', signal), '')
    for (const path of [
      '/init',
      '/freeze',
      '/unfreeze',
      '/collapse',
      '/fsfreeze',
      '/fsthaw',
      '/upgrade',
      '/nothing',
      '/',
    ])
      for (const method of ['GET', 'POST']) await failed(await envd.fetch(path, { method }), 404, /not found/)
    await failed(await envd.fetch('/process.Process/Nothing', { method: 'POST' }), 404, /not found/)
    await failed(await envd.fetch('/files', { method: 'DELETE' }), 405, /not allowed/)
  })

  test('a part of a file, and nothing when it has not changed', async () => {
    await octets('ranged', '0123456789')
    const part = async (range: string) => {
      const answer = await read('ranged', { range })
      return [answer.status, answer.headers.get('content-range'), await answer.text()]
    }
    assert.deepEqual(await part('bytes=2-4'), [206, 'bytes 2-4/10', '234'])
    assert.deepEqual(await part('bytes=7-'), [206, 'bytes 7-9/10', '789'])
    assert.deepEqual(await part('bytes=-3'), [206, 'bytes 7-9/10', '789'])
    assert.deepEqual(await part('bytes=5-100'), [206, 'bytes 5-9/10', '56789'])
    assert.deepEqual((await part('bytes=0-1,3-4')).slice(0, 2), [200, null])
    const beyond = await read('ranged', { range: 'bytes=10-' })
    assert.deepEqual([beyond.status, beyond.headers.get('content-range')], [416, 'bytes */10'])
    const modified = (await read('ranged')).headers.get('last-modified') ?? ''
    assert.equal((await read('ranged', { 'if-modified-since': modified })).status, 304)
    assert.equal((await read('ranged', { 'if-modified-since': new Date(0).toUTCString() })).status, 200)
    assert.equal((await read('ranged', { 'if-range': new Date(0).toUTCString(), range: 'bytes=1-2' })).status, 200)
  })

  test('metadata is kept with the file, replaced by each upload, and told by all who describe it', async () => {
    const files = envd.server.filesystem()
    const put = (headers: Record<string, string>) => octets('described', 'x', headers)
    const answer = await put({ 'X-Metadata-Author': 'me', 'x-metadata-purpose': 'a test' })
    const metadata = { author: 'me', purpose: 'a test' }
    assert.deepEqual(await answer.json(), [{ path: '/home/user/described', name: 'described', type: 'file', metadata }])
    assert.deepEqual((await files.stat({ path: 'described' })).entry?.metadata, metadata)
    const { entries } = await files.listDir({ path: '~' })
    assert.deepEqual(entries.find(({ name }) => name === 'described')?.metadata, metadata)
    assert.deepEqual((await files.move({ source: 'described', destination: 'moved' })).entry?.metadata, metadata)
    await files.move({ source: 'moved', destination: 'described' })
    await put({ 'x-metadata-other': '1' })
    assert.deepEqual((await files.stat({ path: 'described' })).entry?.metadata, { other: '1' })
    await put({})
    assert.deepEqual((await files.stat({ path: 'described' })).entry?.metadata, {})
    await failed(await put({ [`x-metadata-${'k'.repeat(247)}`]: 'x' }), 400, /longer than 246/)
    await failed(await put({ 'x-metadata-k': 'v'.repeat(4090) }), 400, /longer than 4096/)
    await failed(await put({ 'x-metadata-k': '\u00e9' }), 400, /US-ASCII/)
    assert.equal((await put({ [`x-metadata-${'k'.repeat(246)}`]: 'v'.repeat(3000) })).status, 200)
  })

  test('several files become one and go', async () => {
    const compose = (body: object) =>
      envd.fetch('/files/compose', {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body),
      })
    const parts = [randomBytes(500_000), randomBytes(10), Buffer.alloc(0)]
    for (const [index, part] of parts.entries()) await octets(`part-${index}`, part)
    const sources = ['part-0', '/home/user/part-1', '~/part-2']
    await failed(await compose({ source_paths: [], destination: 'whole' }), 400, /source_paths is empty/)
    await failed(await compose({ source_paths: sources }), 400, /destination/)
    await failed(await compose({ source_paths: [...sources, 'none'], destination: 'whole' }), 404, /no source none/)
    await failed(await compose({ source_paths: ['/etc'], destination: 'whole' }), 400, /not a regular file/)
    await failed(await compose({ source_paths: sources, destination: 'part-0' }), 400, /the destination itself/)
    const answer = await compose({ source_paths: sources, destination: 'made/whole' })
    assert.deepEqual(
      [answer.status, await answer.json()],
      [200, { path: '/home/user/made/whole', name: 'whole', type: 'file' }],
    )
    assert.ok((await bytes(await read('made/whole'))).equals(Buffer.concat(parts)))
    assert.equal(await envd.shell('ls /home/user | grep -c part-', signal), '0\n')
    assert.equal(await envd.shell('stat -c %U /home/user/made/whole', signal), 'user\n')
  })

  test('a full disk is 507, and what was there stays', async () => {
    await octets('kept', 'old')
    await envd.shell('dd if=/dev/zero of=/fill bs=1M 2>/dev/null', signal)
    await failed(await octets('kept', Buffer.alloc(3_000_000)), 507, /not enough disk space/)
    await envd.shell('rm /fill', signal)
    assert.equal(await (await read('kept')).text(), 'old')
    assert.equal((await octets('kept', Buffer.alloc(3_000_000))).status, 200)
  })

  test('environment and use are told', async () => {
    assert.deepEqual(await (await envd.fetch('/envs')).json(), {
      E2B_SANDBOX: 'true',
      E2B_SANDBOX_ID: envd.sandbox.id,
      E2B_TEMPLATE_ID: envd.sandbox.template,
      FROM_SANDBOX: 'yes',
    })
    const metrics = z.record(z.string(), z.number()).parse(await (await envd.fetch('/metrics')).json())
    assert.deepEqual(Object.keys(metrics), [
      'ts',
      'cpu_count',
      'cpu_used_pct',
      'mem_total',
      'mem_used',
      'mem_cache',
      'mem_total_mib',
      'mem_used_mib',
      'disk_used',
      'disk_total',
    ])
    assert.ok(Math.abs((metrics.ts ?? 0) - Date.now() / 1000) < 60)
    assert.ok((metrics.mem_total ?? 0) >= (metrics.mem_used ?? 0) && (metrics.mem_used ?? 0) > 0)
    assert.equal(metrics.mem_total_mib, Math.floor((metrics.mem_total ?? 0) / 1024 / 1024))
  })

  test('a secure sandbox answers its token, or what was signed with it', async (t) => {
    envd.sandbox.secure = true
    t.after(() => {
      envd.sandbox.secure = false
    })
    const token = { 'x-access-token': envd.sandbox.accessToken }
    const general = /please provide a valid access token/
    assert.equal((await envd.fetch('/health')).status, 204)
    await failed(await envd.fetch('/envs'), 401, general)
    await failed(await envd.fetch('/envs', { headers: { 'x-access-token': 'wrong' } }), 401, general)
    assert.equal((await envd.fetch('/envs', { headers: token })).status, 200)
    const list = (headers: Record<string, string>) =>
      envd.fetch('/process.Process/List', {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...headers },
        body: '{}',
      })
    await failed(await list({}), 401, general)
    assert.equal((await list(token)).status, 200)
    await failed(await read('described'), 401, /missing signature/)
    await failed(await read('described', { 'x-access-token': 'wrong' }), 401, /does not match/)
    assert.equal((await read('described', token)).status, 200)

    const signed = (change: Record<string, string>, given: Partial<Parameters<typeof signatureOf>[0]> = {}) => {
      const signature = signatureOf({ path: 'described', operation: 'read', user: '', token: 'the-token', ...given })
      return envd.fetch(`/files?${new URLSearchParams({ path: 'described', signature, ...change })}`)
    }
    const seconds = Math.floor(Date.now() / 1000)
    assert.equal((await signed({})).status, 200)
    assert.equal((await signed({ username: 'root' }, { user: 'root' })).status, 404, 'it is not in root’s home')
    const later = String(seconds + 60)
    assert.equal((await signed({ signature_expiration: later }, { expiration: later })).status, 200)
    const past = String(seconds - 5)
    await failed(await signed({ signature_expiration: past }, { expiration: past }), 401, /already expired/)
    for (const wrong of [
      signed({ path: 'empty' }),
      signed({ username: 'root' }),
      signed({ signature_expiration: later }),
      signed({}, { operation: 'write' }),
      signed({}, { token: 'other' }),
      signed({ signature: 'v1_' }),
    ])
      await failed(await wrong, 401, /invalid signature/)
    const signature = signatureOf({ path: 'by-signature', operation: 'write', user: '', token: 'the-token' })
    const upload = await envd.fetch(`/files?${new URLSearchParams({ path: 'by-signature', signature })}`, {
      method: 'POST',
      headers: { 'content-type': 'application/octet-stream' },
      body: 'x',
    })
    assert.equal(upload.status, 200)
  })
})
