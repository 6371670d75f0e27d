import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Agent, get, type ServerResponse } from 'node:http'
import { connect } from 'node:net'
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

test('connections on which nobody asks for anything keep nobody out', { timeout: 60_000 }, async (t) => {
  const quiet = Promise.withResolvers<ServerResponse>()
  const listener = await openListener({
    listen: { host: '127.0.0.1', port: 0 },
    connections: 50,
    onRequest: (request, response) => {
      if (request.url === '/quiet') quiet.resolve(response)
      else response.end('answered')
    },
    wantsUpgrade: () => false,
    onUpgrade: (_, socket) => socket.destroy(),
    onCertificate: () => undefined,
  })
  const port = Number(new URL(listener.url).port)
  const underWay = once(get(`${listener.url}/quiet`, { agent: false }), 'response')
  await quiet.promise
  const idle = Array.from({ length: 300 }, (_, index) => {
    const socket = connect(port, '127.0.0.1')
    socket.on('error', () => undefined)
    // Some say nothing, some begin a request and do not go on.
    if (index % 2 === 0) socket.write('GET / HTTP/1.1\r\nHost: x\r\n')
    return socket
  })
  t.after(() => {
    for (const socket of idle) socket.destroy()
    void listener.close()
    listener.cut()
  })
  for (let request = 0; request < 20; request++) {
    const [answer] = await once(get(listener.url, { agent: false }), 'response')
    assert.equal(Buffer.concat(await Array.fromAsync(answer)).toString(), 'answered')
  }
  const response = await quiet.promise
  response.end('late')
  const [answer] = await underWay
  assert.equal(Buffer.concat(await Array.fromAsync(answer)).toString(), 'late')
})
