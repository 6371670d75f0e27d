import assert from 'node:assert/strict'
import { once } from 'node:events'
import { request as ask, createServer, type IncomingMessage } from 'node:http'
import { type AddressInfo, connect, createServer as createTcpServer, type Socket } from 'node:net'
import { type TestContext, test } from 'node:test'
import { IceboxError } from '@icebox/model'
import { exchange } from './exchange.ts'
import { toGuest } from './headers.ts'

const ADDRESS = { sandbox: 'sandbox1', port: 80, path: '/', prefix: '' }

/** A service that answers whatever it gets with `speak`, behind an exchange; gives the port to call it by, and what exchanges failed with. */
async function pass(t: TestContext, speak: (socket: Socket) => void): Promise<{ port: number; failures: string[] }> {
  const service = createTcpServer((socket) => {
    socket.on('error', () => undefined)
    socket.once('data', () => speak(socket))
  })
  const failures: string[] = []
  const front = createServer()
  const onRequest = (request: IncomingMessage, response: import('node:http').ServerResponse) => {
    const port = (service.address() as AddressInfo).port
    const headers = toGuest({ request, address: ADDRESS, host: undefined, secret: new Set(), upgrade: false })
    exchange({
      request,
      response,
      address: ADDRESS,
      begin: () =>
        ask({ port, host: '127.0.0.1', method: request.method, headers, agent: false, maxHeaderSize: 65_536 }),
      headDeadline: 60_000,
    }).catch((thrown) => {
      failures.push(IceboxError.from(thrown).message)
      response.destroy()
    })
  }
  front.on('request', onRequest)
  front.on('checkContinue', onRequest)
  for (const server of [service, front]) await once(server.listen(0, '127.0.0.1'), 'listening')
  t.after(() => {
    front.closeAllConnections()
    front.close()
    service.close()
  })
  return { port: (front.address() as AddressInfo).port, failures }
}

/** Everything that comes back until the connection is over. */
async function answerTo(port: number, request: string): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  socket.on('error', () => undefined)
  socket.setEncoding('latin1')
  socket.write(request)
  let text = ''
  socket.on('data', (chunk) => {
    text += chunk
    if (text.length > 1_000_000) socket.destroy()
  })
  await once(socket, 'close')
  return text
}

/** Says it again and again as long as it is read. */
function forEver(socket: Socket, words: string): void {
  const block = words.repeat(Math.ceil(16_384 / words.length))
  const speak = () => {
    while (!socket.destroyed && socket.write(block));
  }
  socket.on('drain', speak)
  speak()
}

const OK = 'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok'
const GET = 'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'
const EXPECTING =
  'POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi'

test('an informational answer is passed on once, and only to who expects it', async (t) => {
  const words = 'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n'.repeat(5)
  const { port } = await pass(t, (socket) => socket.end(words + OK))
  const [expected, other] = [await answerTo(port, EXPECTING), await answerTo(port, GET)]
  assert.equal(expected.split('HTTP/1.1 ').length - 1, 2, expected)
  assert.match(expected, /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 200 OK/)
  assert.match(other, /^HTTP\/1\.1 200 OK/)
})

for (const [what, begin, words] of [
  ['informational answers', '', 'HTTP/1.1 100 Continue\r\n\r\n'],
  ['hints', '', 'HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n'],
  ['headers', 'HTTP/1.1 200 OK\r\n', 'X-More: and more\r\n'],
  ['one header', 'HTTP/1.1 200 OK\r\nX-Long: ', 'more'],
  ['a status', 'HTTP/1.1 200 ', 'fine'],
  ['trailers', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n', 'X-More: and more\r\n'],
  ['an extension of a chunk', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1', ';more=more'],
] as const)
  test(`a service that gives ${what} without end is given up`, { timeout: 20_000 }, async (t) => {
    const { port, failures } = await pass(t, (socket) => {
      socket.write(begin)
      forEver(socket, words)
    })
    const answer = await answerTo(port, GET)
    assert.ok(answer.length < 10_000, `${answer.length} characters came back`)
    assert.ok(answer === '' ? failures.length === 1 : !answer.endsWith('0\r\n\r\n'), answer)
  })
