import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { receive } from './upload.ts'

const BOUNDARY = 'boundary'
const TYPE = `multipart/form-data; boundary=${BOUNDARY}`
const part = (name: string, content: string) =>
  `--${BOUNDARY}\r\nContent-Disposition: form-data; name="${name}"; filename="f"\r\n\r\n${content}\r\n`
const pair = (n: number) => part('metadata', JSON.stringify({ path: `/f${n}` })) + part('file', String(n))

test('a form of many small files is taken only as fast as they are written', async () => {
  const [chunks, each] = [200, 50]
  let taken = 0
  async function* body() {
    for (; taken < chunks; taken++)
      yield Buffer.from(Array.from({ length: each }, (_, n) => pair(taken * each + n)).join(''))
    yield Buffer.from(`--${BOUNDARY}--\r\n`)
  }
  const { promise: released, resolve } = Promise.withResolvers<void>()
  const written: string[] = []
  const received = receive(body(), TYPE, AbortSignal.timeout(60_000), async ({ path }, content) => {
    await released
    for await (const bytes of content) written.push(`${path} ${Buffer.from(bytes)}`)
  })
  for (let before = -1; before !== taken; await sleep(50)) before = taken
  assert.ok(taken < 20, `${taken} of ${chunks} pieces were taken`)
  resolve()
  await received
  assert.deepEqual(
    written,
    Array.from({ length: chunks * each }, (_, n) => `/f${n} ${n}`),
  )
})

test('descriptions without their files end the form', async () => {
  let taken = 0
  async function* body() {
    for (; ; taken++) yield Buffer.from(part('metadata', JSON.stringify({ path: `/f${taken}` })))
  }
  await assert.rejects(
    receive(body(), TYPE, AbortSignal.timeout(60_000), async () => undefined),
    { code: 'InvalidArgument', message: /more than 64 files/ },
  )
})

test('the head of a part is bounded', async () => {
  async function* body() {
    yield Buffer.from(`--${BOUNDARY}\r\nContent-Disposition: form-data; name="metadata"; filename="f"\r\n`)
    for (let sent = 0; sent < 100; sent++) yield Buffer.from(`X-More: ${'x'.repeat(60_000)}\r\n`)
    yield Buffer.from(`\r\n{}\r\n--${BOUNDARY}--\r\n`)
  }
  await assert.rejects(
    receive(body(), TYPE, AbortSignal.timeout(60_000), async () => undefined),
    { code: 'InvalidArgument' },
  )
})
