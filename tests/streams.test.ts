import assert from 'node:assert/strict'
import type { IncomingMessage } from 'node:http'
import { after, before, test } from 'node:test'
import { baseImageFile } from '@icebox/node'
import { KEY } from './faults/parts.ts'
import { call, Inside, send } from './gateway/inside.ts'
import { eventually } from './server-process.ts'

/** How many streams the API has open at once, with real sandboxes behind them. */

let inside: Inside
let id: string
before(async () => {
  inside = await Inside.open()
  id = await inside.sandbox({ entrypoint: ['sleep', '1000'] })
})
after(() => inside?.[Symbol.asyncDispose]())

const NDJSON = 'application/x-ndjson'

test('streams are not more than a project and the server may have, whatever they are of', async () => {
  const { url } = await inside.serve({ streams: { each: 4, inAll: 5 } })
  const other = (await inside.parts.control.keys.create({ project: 'other', label: '' })).key
  // So that it has an event to begin with.
  const { images, templates } = inside.parts.control.project('other')
  const upload = { kind: 'tar' as const, file: baseImageFile(), reference: 'upload:base' }
  const image = await images.import(upload, () => {}, AbortSignal.timeout(60_000))
  const template = { name: 'its', image: image.spec.digest, size: { memoryMiB: 128 }, env: {} }
  const built = templates.build(template, () => {}, AbortSignal.timeout(60_000))
  await (await built).settled
  const options = (key: string) => ({
    headers: { 'x-api-key': key, accept: NDJSON, 'content-type': 'application/json' },
  })
  const events = (key = KEY) => send(`${url}/v1/events`, options(key))
  const exec = (argv: string[]) =>
    send(`${url}/v1/sandboxes/${id}/execs`, { ...options(KEY), method: 'POST' }, JSON.stringify({ argv }))
  const open: IncomingMessage[] = []
  const opened = async (answer: Promise<IncomingMessage>) => {
    const response = await answer
    assert.equal(response.statusCode, 200)
    open.push(response)
  }
  try {
    await opened(events())
    await opened(send(`${url}/v1/sandboxes/${id}/logs?follow=true`, options(KEY)))
    await opened(send(`${url}/v1/sandboxes/${id}/files/watch?path=/tmp`, options(KEY)))
    await opened(exec(['sleep', '1000']))
    const execs = async () => (await call(`${url}/v1/sandboxes/${id}/execs`, options(KEY))).text
    const before = await execs()
    const refused = await exec(['touch', '/tmp/started'])
    assert.deepEqual([refused.statusCode, refused.headers['retry-after']], [429, '1'])
    refused.resume()
    const { status, text } = await call(`${url}/v1/events`, options(KEY))
    assert.equal(status, 429)
    assert.match(text, /4 streams of this project are open/)
    // What was refused has started nothing, and what is no stream is answered.
    assert.equal(await execs(), before)
    await opened(events(other))
    const full = await call(`${url}/v1/events`, options(other))
    assert.deepEqual([full.status, full.headers['retry-after']], [503, '1'])
  } finally {
    for (const response of open) response.destroy()
  }
  await eventually(async () => {
    const response = await events()
    response.destroy()
    return response.statusCode === 200 ? true : undefined
  }, 'there is room again')
})
