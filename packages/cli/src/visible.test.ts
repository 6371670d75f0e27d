import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { stripVTControlCharacters } from 'node:util'
import { logText } from './server-log.ts'
import { visible, visibleJson, visibleLines } from './visible.ts'

const MAIN = join(import.meta.dirname, 'main.ts')
/** Of each kind one: C0, DEL, C1, separators, directions; a title of a window, colours, and the cursor. */
const HOSTILE =
  'a\u0000\u0007\b\r\u001b[2J\u001b]0;title\u0007\u001b[8m\u007f\u009b31m\u0085\u061c\u200e\u2028\u202e\u2066\u2069z'
const UNSAFE = /[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/u

const listOf = (item: object) => ({ items: [item], pagination: { hasNextPage: false } })

/** A server that was taken over by what it serves: every text in its answers is hostile. */
async function hostileServer(t: TestContext): Promise<string> {
  const at = '2026-01-01T00:00:00.000Z'
  const status = { state: 'Failed', reason: HOSTILE, message: HOSTILE }
  const size = { cpu: 1, memoryMiB: 1, diskMiB: 1 }
  const sandbox = {
    ...{ id: 'aaaaaaaaaaaaaaaaaaaa', name: HOSTILE, project: HOSTILE, template: HOSTILE, onTimeout: 'kill' },
    ...{ metadata: { [HOSTILE]: HOSTILE }, entrypoint: [HOSTILE], createdAt: at, size, status, env: {} },
  }
  const snapshot = {
    ...{ id: 'bbbbbbbbbbbbbbbbbbbb', name: HOSTILE, kind: 'memory', sandboxId: HOSTILE, template: HOSTILE },
    ...{ image: HOSTILE, size, status, createdAt: at },
  }
  const template = { id: 'c', name: HOSTILE, image: HOSTILE, env: { A: HOSTILE }, size, status, createdAt: at }
  const event = { id: 1, at, project: 'p', kind: HOSTILE, resource: HOSTILE, to: HOSTILE, reason: HOSTILE }
  const error = { code: 'NotFound', message: HOSTILE, remedy: HOSTILE }
  const answers: Record<string, unknown> = {
    '/v1/sandboxes': listOf(sandbox),
    '/v1/sandboxes/box': sandbox,
    '/v1/snapshots': listOf(snapshot),
    '/v1/templates': listOf(template),
    '/v1/events': [event],
    '/v1/sandboxes/aaaaaaaaaaaaaaaaaaaa/logs': { at, source: 'stdout', text: HOSTILE },
  }
  const server = createServer(({ url = '', headers }, response) => {
    const answer = answers[url.split('?')[0] ?? '']
    const lines = headers.accept?.includes('ndjson') === true
    const body = lines && Array.isArray(answer) ? answer[0] : answer
    response.writeHead(body === undefined ? 404 : 200, {
      'content-type': lines ? 'application/x-ndjson' : 'application/json',
    })
    response.end(`${JSON.stringify(body ?? error)}\n`)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.after(() => server.closeAllConnections())
  t.after(() => server.close())
  const address = server.address()
  return `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}`
}

async function said(t: TestContext, words: string[], url: string): Promise<string> {
  const env = { ...process.env, ICEBOX_URL: url, ICEBOX_API_KEY: `e2b_${'0'.repeat(40)}`, FORCE_COLOR: '1' }
  const child = spawn(process.execPath, [MAIN, ...words], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  t.after(() => child.kill('SIGKILL'))
  let text = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (piece: string) => {
      text += piece
      // What is followed never ends: one answer is enough.
      if (words.includes('-f') && text.includes('\n')) child.kill('SIGINT')
    })
  await once(child, 'close')
  return text
}

test('what others wrote is shown in lists, facts, trees, events, logs with times and errors, and does nothing', async (t) => {
  const url = await hostileServer(t)
  const commands = ['ps', 'sandbox show box', 'snapshot list', 'snapshot tree', 'template list', 'events', 'events -f']
  for (const words of [...commands, 'logs --entries box', 'image delete x', 'template show none']) {
    const text = await said(t, words.split(' '), url)
    assert.match(text, /z/, words)
    assert.ok(text.includes(String.raw`\x1b[2J`), `${words}: ${JSON.stringify(text)}`)
    // Colours of our own are wanted here; what is left of a sequence of theirs would still hold what stood around it.
    const left = stripVTControlCharacters(text).split('\n')
    for (const line of left) assert.doesNotMatch(line, UNSAFE, words)
    assert.equal(stripVTControlCharacters(text).includes(String.raw`\x1b]0;title\x07\x1b[8m\x7f\x9b31m`), true, words)
  }
})

test('as JSON the same texts come back, without a control character on the way', async (t) => {
  const url = await hostileServer(t)
  for (const words of ['ps --json', 'events --json', 'template show none --json']) {
    const text = await said(t, words.split(' '), url)
    for (const line of text.split('\n')) assert.doesNotMatch(line, UNSAFE, words)
    const parsed: unknown = JSON.parse(text)
    assert.ok(JSON.stringify(parsed).includes(JSON.stringify(HOSTILE)), words)
  }
})

test('unsafe characters have one form each, and all others stay', () => {
  assert.equal(visible('grün 日本 👩‍👩‍👧 \\x1b'), 'grün 日本 👩‍👩‍👧 \\x1b')
  assert.equal(visible('a\n\t\u001b\u009b\u202e'), String.raw`a\n\t\x1b\x9b\u202e`)
  assert.equal(visibleLines('a\n\tb\u001b'), 'a\n\tb\\x1b')
  assert.deepEqual(JSON.parse(visibleJson(JSON.stringify({ a: HOSTILE }, null, 2))), { a: HOSTILE })
  const line = logText({ time: 't', level: HOSTILE, event: HOSTILE, [HOSTILE]: HOSTILE, nested: { of: HOSTILE } })
  assert.doesNotMatch(stripVTControlCharacters(line), UNSAFE)
  assert.ok(stripVTControlCharacters(line).includes(String.raw`\x1b[8m`))
})
