import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { KEY } from './faults/parts.ts'
import { call, Inside } from './gateway/inside.ts'

/** A sandbox that was created for everybody who knows its id, on a server that does not want such. */

let inside: Inside
before(async () => {
  inside = await Inside.open()
})
after(() => inside?.[Symbol.asyncDispose]())

test('a server that requires tokens asks for that of every sandbox, and tells it to its clients', async () => {
  const id = await inside.sandbox({ secure: false })
  const open = await inside.serve()
  const strict = await inside.serve({ requireTokens: true })
  const envd = (url: string, headers: Record<string, string> = {}) =>
    call(`${url}/files?path=/etc/hostname`, {
      headers: { 'e2b-sandbox-id': id, 'e2b-sandbox-port': '49983', ...headers },
    })
  const execd = (url: string, headers: Record<string, string> = {}) =>
    call(`${url}/v1/sandboxes/${id}/proxy/44772/files/info?path=/etc/hostname`, { headers })
  for (const ask of [envd, execd]) {
    assert.equal((await ask(open.url)).status, 200)
    assert.equal((await ask(strict.url)).status, 401)
  }
  const told = async (url: string) => {
    const { text } = await call(`${url}/sandboxes/${id}`, { headers: { 'x-api-key': KEY } })
    const detail: { envdAccessToken?: string } = JSON.parse(text)
    return detail.envdAccessToken
  }
  assert.equal(await told(open.url), undefined)
  const token = (await told(strict.url)) ?? ''
  assert.equal((await envd(strict.url, { 'x-access-token': token })).status, 200)
  assert.equal((await execd(strict.url, { 'x-execd-access-token': token })).status, 200)
  const endpoint = await call(`${strict.url}/v1/sandboxes/${id}/endpoints/44772`, { headers: { 'x-api-key': KEY } })
  assert.ok(endpoint.text.includes(token))
})
