import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { ERRORS, type ErrorCode, IceboxError } from '@icebox/model'
import { createApp } from '../app.ts'
import { serve } from '../testing.ts'
import { e2bError, isE2bPath } from './error.ts'

const CODES = Object.keys(ERRORS).filter((code): code is ErrorCode => code in ERRORS)

describe('errors in the shape of E2B', () => {
  it('repeat the status, which is one that its clients know', () => {
    for (const code of CODES) {
      const { code: status, message, error_code } = e2bError(new IceboxError(code, 'why'))
      assert.equal(message, 'why')
      assert.match(error_code ?? '', /^[a-z_]+$/)
      assert.ok(status < 500 || [500, 502, 503, 507].includes(status), `${code}: ${status}`)
    }
    assert.deepEqual(e2bError(new IceboxError('NotFound', 'no')), { code: 404, message: 'no', error_code: 'not_found' })
    assert.equal(e2bError(new IceboxError('NoMemory', 'full')).error_code, 'sandbox_capacity_unavailable')
  })

  it('are for the paths of E2B and no others', () => {
    for (const path of ['/sandboxes', '/sandboxes/a?b', '/v2/sandboxes', '/v3/x', '/v2', '/teams?x', '/templates/a/b'])
      assert.ok(isE2bPath(path), path)
    for (const path of ['/', '/v1/sandboxes', '/v1/templates', '/health', '/sandboxesx', '/v22/x', '/x/sandboxes'])
      assert.ok(!isE2bPath(path), path)
  })

  it('say when to come again, where a limit is reached', async () => {
    const app = createApp({ logger: false })
    app.get('/sandboxes', async () => {
      throw new IceboxError('TooManyRequests', 'over the limit', { details: { retryAfterSeconds: 3 } })
    })
    const response = await app.inject('/sandboxes')
    assert.deepEqual([response.statusCode, response.headers['retry-after']], [429, '3'])
    assert.deepEqual(response.json(), { code: 429, message: 'over the limit', error_code: 'too_many_requests' })
  })

  it('are told to web pages, too', async (t) => {
    const server = await serve(t)
    const refused = await server.call('GET', '/sandboxes', { headers: { origin: 'https://evil.example' } })
    assert.equal(refused.status, 403)
    const { code } = (await refused.json()) as { code: number }
    assert.equal(code, 403)
  })
})
