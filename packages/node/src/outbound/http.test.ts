import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { after, before, test } from 'node:test'
import { isError } from '@icebox/model'
import { request, Transient } from './http.ts'
import { AddressPolicy } from './policy.ts'

/** A proxy that lets nothing through, and what it was asked for. */
const proxy = createServer()
let asked: (string | undefined)[] = []
const PROXY_VARIABLES = ['HTTPS_PROXY', 'https_proxy', 'NO_PROXY', 'no_proxy']
const environment = PROXY_VARIABLES.map((name) => [name, process.env[name]] as const)

before(async () => {
  proxy.on('connect', ({ url }, socket) => {
    asked.push(url)
    socket.end('HTTP/1.1 403 Forbidden\r\n\r\n')
  })
  proxy.listen(0, '127.0.0.1')
  await once(proxy, 'listening')
  for (const name of PROXY_VARIABLES) delete process.env[name]
  process.env.HTTPS_PROXY = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`
})
after(() => {
  for (const [name, value] of environment)
    if (value === undefined) delete process.env[name]
    else process.env[name] = value
  proxy.close()
})

const failure = (url: string, policy = new AddressPolicy([])): Promise<unknown> =>
  request(new URL(url), {}, policy, AbortSignal.timeout(30_000)).then(
    () => assert.fail(`${url} answers`),
    (thrown: unknown) => (thrown instanceof Transient ? thrown.error : thrown),
  )

test('a proxy is asked for names, and for no address that may not be connected to', async () => {
  asked = []
  assert.ok(isError(await failure('https://registry.invalid/v2/'), 'RegistryUnreachable'))
  assert.deepEqual(asked, ['registry.invalid:443'])
  asked = []
  for (const host of ['10.0.0.1', '[::1]', '169.254.169.254', 'localhost', '[::ffff:a00:1]', '0x7f.1', '2130706433'])
    assert.ok(isError(await failure(`https://${host}/v2/`), 'RegistryUnreachable'), host)
  assert.deepEqual(asked, [])
  await failure('https://10.0.0.1/v2/', new AddressPolicy(['10.0.0.1:443']))
  assert.deepEqual(asked, ['10.0.0.1:443'])
})
