import assert from 'node:assert/strict'
import { test } from 'node:test'
import { proxyOf } from './proxy.ts'

test('the environment names a proxy for HTTPS, and hosts that are reached without', () => {
  const env = { HTTPS_PROXY: 'http://proxy:1', NO_PROXY: 'corp.example, .in.example,*.out.example 10.0.0.1,a.b:5000' }
  const through = (url: string) => proxyOf(new URL(url), env)
  assert.equal(through('https://registry.example/v2/'), env.HTTPS_PROXY)
  assert.equal(through('http://registry.example/v2/'), undefined)
  for (const host of ['corp.example', 'x.corp.example', 'y.in.example', 'z.out.example', '10.0.0.1', 'a.b:5000'])
    assert.equal(through(`https://${host}/`), undefined, host)
  for (const host of ['xcorp.example', 'a.b', 'a.b:5001']) assert.equal(through(`https://${host}/`), env.HTTPS_PROXY)
  assert.equal(proxyOf(new URL('https://a'), { ...env, NO_PROXY: '*' }), undefined)
  assert.equal(proxyOf(new URL('https://a'), {}), undefined)
})
