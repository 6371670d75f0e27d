import assert from 'node:assert/strict'
import { type IncomingMessage, request } from 'node:http'
import type { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import { after, before, test } from 'node:test'
import { CreateSandbox } from '@icebox/model'
import { baseImageFile } from '@icebox/node'
import { KEY } from './faults/parts.ts'
import { call, Inside, send } from './gateway/inside.ts'

/** What a key has begun, for a real sandbox, when that key is revoked. */

let inside: Inside
let id: string
before(async () => {
  inside = await Inside.open()
  const project = inside.parts.control.project('other')
  const size = { memoryMiB: 128, diskMiB: 256 }
  const signal = AbortSignal.timeout(120_000)
  const upload = { kind: 'tar' as const, file: baseImageFile(), reference: 'upload:base' }
  const image = await project.images.import(upload, () => {}, signal)
  const template = { name: 'base', image: image.spec.digest, size, env: {} }
  await (await project.templates.build(template, () => {}, signal)).settled
  const asked = CreateSandbox.parse({ template: 'base', entrypoint: ['sleep', '1000'] })
  id = (await (await project.sandboxes.create(asked, signal)).settled).metadata.name
})
after(() => inside?.[Symbol.asyncDispose]())

const closed = (stream: Readable): Promise<void> =>
  new Promise((resolve) => {
    stream.on('error', () => undefined).once('close', resolve)
  })

/** Resolves with what was read until the answer was over, whether it was cut or ended. */
async function rest(response: IncomingMessage): Promise<string> {
  let text = ''
  response.on('data', (chunk) => {
    text += chunk
  })
  await closed(response)
  return text
}

function upgrade(url: string, key: string): Promise<Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<Socket>()
  const outgoing = request(url, { agent: false, headers: { 'x-api-key': key, connection: 'upgrade', upgrade: 'tcp' } })
  outgoing.once('upgrade', (_answer, socket: Socket) => resolve(socket))
  outgoing.once('response', (answer) => reject(new Error(`no upgrade but ${answer.statusCode}`)))
  outgoing.once('error', reject)
  outgoing.end()
  return promise
}

test('a revoked key ends what it has begun, and nothing of others', { timeout: 60_000 }, async (t) => {
  const { url } = await inside.serve()
  const { keys } = inside.parts.control
  const [revoked, other] = [
    await keys.create({ project: 'other', label: '' }),
    await keys.create({ project: 'other', label: '' }),
  ]
  const headers = (key: string) => ({
    'x-api-key': key,
    accept: 'application/x-ndjson',
    'content-type': 'application/json',
  })
  const execd = (key: string) =>
    send(
      `${url}/v1/sandboxes/${id}/proxy/44772/command`,
      { method: 'POST', headers: headers(key) },
      JSON.stringify({ command: 'echo begun; sleep 1000' }),
    )
  const exec = (key: string) =>
    send(
      `${url}/v1/sandboxes/${id}/execs`,
      { method: 'POST', headers: headers(key) },
      JSON.stringify({ argv: ['sleep', '1000'], tty: { cols: 80, rows: 24 } }),
    )
  const listening = [
    'python3',
    '-u',
    '-c',
    'import socket,time; s=socket.create_server(("",4000)); print("ready"); time.sleep(1000)',
  ]
  const session = await inside.parts.control
    .project('other')
    .sandboxes.exec(id, { argv: listening }, AbortSignal.timeout(60_000))
  for await (const event of session.events) if (event.type === 'output') break
  const begin = async (key: string) => ({
    answers: await Promise.all([
      send(`${url}/v1/events?follow=true`, { headers: headers(key) }),
      send(`${url}/v1/sandboxes/${id}/files/watch?path=/tmp`, { headers: headers(key) }),
      exec(key),
      execd(key),
    ]),
    socket: await upgrade(`${url}/v1/sandboxes/${id}/ports/4000`, key),
  })
  const [its, theirs] = [await begin(revoked.key), await begin(other.key)]
  t.after(() => {
    for (const { answers, socket } of [its, theirs]) for (const each of [...answers, socket]) each.destroy()
  })
  for (const { statusCode } of [...its.answers, ...theirs.answers]) assert.equal(statusCode, 200)
  let over = false
  for (const each of [...theirs.answers, theirs.socket])
    each.once('close', () => {
      over = true
    })
  const ends = Promise.all([...its.answers.map(rest), closed(its.socket.resume())])
  const answer = await call(`${url}/v1/keys/${revoked.record.metadata.name}`, {
    method: 'DELETE',
    headers: { 'x-api-key': KEY },
  })
  assert.equal(answer.status, 204)
  const [events, watched] = await ends
  for (const text of [events, watched]) assert.match(String(text), /the API key was revoked/)
  assert.equal(over, false)
  assert.equal((await call(`${url}/v1/sandboxes`, { headers: headers(revoked.key) })).status, 401)
  assert.equal((await call(`${url}/v1/sandboxes`, { headers: headers(other.key) })).status, 200)
})
