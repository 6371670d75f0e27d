import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Agent, get, type ServerResponse } from 'node:http'
import { test } from 'node:test'
import { openListener } from './listener.ts'

test('a connection whose request ends while the listener closes is not kept for another request', async (t) => {
  const asked = Promise.withResolvers<ServerResponse>()
  const listener = await openListener({
    listen: { host: '127.0.0.1', port: 0 },
    onRequest: (_, response) => asked.resolve(response),
    wantsUpgrade: () => false,
    onUpgrade: (_, socket) => socket.destroy(),
    onCertificate: () => undefined,
  })
  const agent = new Agent({ keepAlive: true })
  t.after(() => {
    agent.destroy()
    listener.cut()
  })
  const answered = once(get(listener.url, { agent }), 'response')
  const response = await asked.promise
  let isClosed = false
  const closed = listener.close().then(() => {
    isClosed = true
  })
  response.end('last words')
  const [answer] = await answered
  assert.equal(Buffer.concat(await Array.fromAsync(answer)).toString(), 'last words')
  await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, 10_000).unref())])
  assert.ok(isClosed)
})
