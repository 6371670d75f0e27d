import assert from 'node:assert/strict'
import { readdirSync, statSync } from 'node:fs'
import http from 'node:http'
import { join } from 'node:path'
import { test } from 'node:test'
import { IceboxError } from '@icebox/model'
import { KEY, serve, type TestServer, until } from '../testing.ts'

const PATH = '/v1/images/import'

/** An upload under way, and what it is answered with. */
function upload(server: TestServer, headers: http.OutgoingHttpHeaders = {}) {
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number; code: string }>()
  const request = http.request(server.url + PATH, {
    method: 'POST',
    headers: { 'x-api-key': KEY, 'content-type': 'application/x-tar', ...headers },
    agent: false,
  })
  request.on('error', reject)
  request.on('response', async (response) => {
    let text = ''
    for await (const piece of response.setEncoding('utf8')) text += piece
    resolve({ status: response.statusCode ?? 0, code: JSON.parse(text).code })
  })
  promise.catch(() => {})
  return { request, answer: promise }
}

const left = ({ temporaryDirectory }: TestServer) => readdirSync(temporaryDirectory)

test('an upload that says it is too large, or that does not fit, is refused before it is read', async (t) => {
  const asked: unknown[] = []
  const server = await serve(t, {
    withinSpace: (_content, _file, bytes, what) => {
      asked.push(bytes)
      throw new IceboxError('NoSpace', `${what} does not fit`)
    },
  })
  const large = upload(server, { 'content-length': 20 * 2 ** 30 })
  large.request.flushHeaders()
  assert.deepEqual(await large.answer, { status: 413, code: 'TooLarge' })
  large.request.destroy()
  assert.deepEqual(asked, [])
  const announced = upload(server, { 'content-length': 1000 })
  announced.request.flushHeaders()
  assert.deepEqual(await announced.answer, { status: 507, code: 'NoSpace' })
  announced.request.destroy()
  assert.deepEqual(asked, [1000])
  await until(() => left(server).length === 0)
})

test('an upload of unknown length is ended when the disk has no room for more', async (t) => {
  let room = 2
  const server = await serve(t, {
    async *withinSpace(content, _file, _bytes, what) {
      for await (const chunk of content) {
        if (room-- === 0) throw new IceboxError('NoSpace', `${what} does not fit`)
        yield chunk
      }
    },
  })
  const { request, answer } = upload(server)
  const piece = Buffer.alloc(1_048_576)
  let sent = 0
  const more = () => {
    while (!request.destroyed && request.writable && sent++ < 512) if (!request.write(piece)) return
  }
  request.on('drain', more)
  more()
  assert.deepEqual(await answer, { status: 507, code: 'NoSpace' })
  assert.ok(sent < 512, 'it was ended in the middle')
  request.destroy()
  await until(() => left(server).length === 0)
})

test('a project has two uploads at once, and what a client leaves is removed', async (t) => {
  const server = await serve(t)
  const open = [upload(server), upload(server)]
  for (const { request } of open) request.write('x')
  await until(() => left(server).length === 2)
  for (const name of left(server)) assert.equal(statSync(join(server.temporaryDirectory, name)).mode & 0o077, 0)
  const third = upload(server)
  third.request.flushHeaders()
  assert.deepEqual(await third.answer, { status: 429, code: 'TooManyRequests' })
  third.request.destroy()
  for (const { request } of open) request.destroy()
  await until(() => left(server).length === 0)
  // It comes as far as the control plane, which is not there.
  const { request, answer } = upload(server)
  request.end('x')
  assert.deepEqual(await answer, { status: 500, code: 'Internal' })
  assert.deepEqual(left(server), [])
})
