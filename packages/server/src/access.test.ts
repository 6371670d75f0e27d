import assert from 'node:assert/strict'
import { request } from 'node:http'
import { describe, it, type TestContext } from 'node:test'
import { hostName } from './access.ts'
import { KEY, serve } from './testing.ts'

/** fetch does not send a Host or Origin of one's own. */
function get(url: string, headers: Record<string, string>): Promise<{ status: number; code: string | undefined }> {
  return new Promise((resolve, reject) => {
    request(url, { headers, agent: false }, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => {
        text += chunk
      })
      response.on('end', () => resolve({ status: response.statusCode ?? 0, code: JSON.parse(text).code }))
    })
      .on('error', reject)
      .end()
  })
}

const info = async (t: TestContext, options: Parameters<typeof serve>[1] = {}) =>
  `${(await serve(t, options)).url}/v1/info`

describe('the API key', () => {
  it('is taken from each of three headers', async (t) => {
    const url = await info(t)
    for (const headers of [
      { 'OPEN-SANDBOX-API-KEY': KEY },
      { 'X-API-Key': KEY },
      { Authorization: `Bearer ${KEY}` },
      { Authorization: `bearer  ${KEY}` },
      { Authorization: 'Bearer of-something-else', 'X-API-Key': KEY },
    ])
      assert.deepEqual(await get(url, headers), { status: 200, code: undefined })
  })

  it('is refused when wrong, empty, part of the right one, or absent', async (t) => {
    const url = await info(t)
    for (const headers of [
      {},
      { 'X-API-Key': '' },
      { 'X-API-Key': KEY.slice(0, -1) },
      { 'X-API-Key': `${KEY}0` },
      { Authorization: KEY },
      { Authorization: `Basic ${KEY}` },
      { 'OPEN-SANDBOX-API-KEY': 'wrong' },
    ])
      assert.deepEqual(await get(url, headers), { status: 401, code: 'Unauthorized' }, JSON.stringify(headers))
  })

  it('is not needed for /health, and needed before a route is said not to exist', async (t) => {
    const { url } = await serve(t)
    assert.equal((await get(`${url}/health`, {})).status, 200)
    assert.equal((await get(`${url}/nothing`, {})).code, 'Unauthorized')
    assert.equal((await get(`${url}/nothing`, { 'X-API-Key': KEY })).code, 'NotFound')
  })
})

describe('the Host header', () => {
  const status = async (url: string, host: string) => (await get(url, { 'X-API-Key': KEY, host })).status

  it('may be a loopback name or address, with any port', async (t) => {
    const url = await info(t)
    for (const host of [
      'localhost',
      'LOCALHOST:80',
      'localhost.:7070',
      '127.0.0.1:1',
      '127.1.2.3',
      '[::1]:7070',
      '[::1]',
    ])
      assert.equal(await status(url, host), 200, host)
  })

  it('may not be another name, as after DNS rebinding, nor look like ours', async (t) => {
    const url = await info(t)
    for (const host of [
      'evil.example',
      'evil.example:7070',
      '127.0.0.1.evil.example',
      'localhost.evil.example',
      '10.0.0.1',
      '[::2]:7070',
    ])
      assert.equal(await status(url, host), 403, host)
  })

  it('is refused for /health, too', async (t) => {
    const { url } = await serve(t)
    assert.equal((await get(`${url}/health`, { host: 'evil.example' })).status, 403)
  })

  it('may be any address, and still no other name, on a server that listens on all', async (t) => {
    const url = await info(t, { listen: { host: '0.0.0.0', port: 0 } })
    assert.match(url, /^http:\/\/127\.0\.0\.1:\d+\//)
    assert.equal(await status(url, '192.168.1.5:7070'), 200)
    assert.equal(await status(url, 'evil.example'), 403)
  })

  it('may be a configured one', async (t) => {
    const url = await info(t, { allowedHosts: ['Icebox.example'] })
    assert.equal(await status(url, 'icebox.example:443'), 200)
    assert.equal(await status(url, 'other.example'), 403)
  })

  it('is parsed without its port', () => {
    assert.equal(hostName('a.example:80'), 'a.example')
    assert.equal(hostName('[fe80::1]:80'), 'fe80::1')
    assert.equal(hostName('['), '')
    assert.equal(hostName('A.'), 'a')
  })
})

describe('the Origin header', () => {
  it('is refused, also when it is of this machine, unless its host was configured', async (t) => {
    const url = await info(t, { allowedHosts: ['icebox.example'] })
    for (const origin of ['https://evil.example', 'http://localhost:3000', 'null', 'nonsense', '', new URL(url).origin])
      assert.deepEqual(await get(url, { 'X-API-Key': KEY, origin }), { status: 403, code: 'Forbidden' }, origin)
    assert.equal((await get(url, { 'X-API-Key': KEY, origin: 'https://icebox.example' })).status, 200)
  })
})
