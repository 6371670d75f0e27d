import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, rm, statfs } from 'node:fs/promises'
import { type ClientRequest, type IncomingMessage, request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { openIcebox, type RunningIcebox } from '@icebox/cli'
import { Limits } from '@icebox/control'
import { Icebox } from '@icebox/sdk'
import { openDataDirectory } from '@icebox/snapshot'

/** A data directory on a small disk of its own, so that it can be filled. */
const DISK_MIB = 512
const MIB = 2 ** 20
const signal = () => AbortSignal.timeout(60_000)

let data = ''
let server: RunningIcebox
let key = ''

before(async () => {
  data = await mkdtemp(join(tmpdir(), 'icebox-transfers-'))
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK_MIB}m`, 'icebox-test', data])
  server = await openIcebox(
    {
      dataDirectory: data,
      reach: { listen: { host: '127.0.0.1', port: 0 } },
      report: () => undefined,
      slots: 0,
      limits: Limits.parse({ transfers: 2, transfersInAll: 3 }),
      onShutdown: () => undefined,
    },
    signal(),
  )
  key = (await readFile(server.keyFile, 'utf8')).trim()
})

after(async () => {
  try {
    await server.close('kill', signal())
  } finally {
    const { run, close } = await openDataDirectory(data)
    await close()
    execFileSync('umount', ['--lazy', data])
    await rm(data, { recursive: true })
    await rm(run, { recursive: true, force: true })
  }
})

/** An upload that goes on as long as somebody writes to it. Without a Content-Length, it comes in chunks. */
function upload(apiKey = key): ClientRequest {
  const { hostname, port } = new URL(server.localUrl)
  const sent = request({
    hostname,
    port,
    method: 'POST',
    path: '/v1/snapshots/import',
    headers: { authorization: `Bearer ${apiKey}`, 'content-type': 'application/x-tar' },
  })
  sent.on('error', () => undefined)
  return sent
}

async function answerOf(sent: ClientRequest): Promise<{ status: number | undefined; text: string }> {
  const [response]: [IncomingMessage] = (await once(sent, 'response', { signal: signal() })) as [IncomingMessage]
  const text = Buffer.concat(await Array.fromAsync(response)).toString()
  return { status: response.statusCode, text }
}

const uploads = async () => (await readdir(join(data, 'tmp'))).filter((name) => name.startsWith('import-'))

async function until(condition: () => Promise<boolean>): Promise<void> {
  const deadline = signal()
  while (!(await condition())) {
    deadline.throwIfAborted()
    await sleep(20)
  }
}

test('an import of unknown length ends with 507 before the disk is full, and leaves nothing', async () => {
  const sent = upload()
  const over = Promise.withResolvers<'over'>()
  const answered = answerOf(sent)
  void answered.finally(() => over.resolve('over'))
  const block = Buffer.alloc(MIB, 'x')
  let least = Number.POSITIVE_INFINITY
  for (;;) {
    const written = new Promise((resolve) => sent.write(block, resolve))
    if ((await Promise.race([written, over.promise])) === 'over') break
    const { bavail, bsize } = await statfs(data)
    least = Math.min(least, bavail * bsize)
  }
  const { status, text } = await answered
  sent.destroy()
  assert.equal(status, 507, text)
  assert.match(text, /NoSpace/)
  assert.ok(least >= 8 * MIB, `${least} bytes were left`)
  await until(async () => (await uploads()).length === 0)
})

test('imports under way are so many of a project and of all; everybody has one, and what is over makes room', async () => {
  const icebox = new Icebox({ url: server.url, dataDirectory: data })
  const other = (await icebox.keys.create({ project: 'other' })).key
  const third = (await icebox.keys.create({ project: 'third' })).key
  const open: ClientRequest[] = []
  const begin = async (apiKey?: string) => {
    const sent = upload(apiKey)
    open.push(sent)
    sent.write('x')
    await until(async () => (await uploads()).length === open.length)
  }
  const refusedAs = async (limit: string, apiKey?: string) => {
    const sent = upload(apiKey)
    sent.end('x')
    const { status, text } = await answerOf(sent)
    assert.equal(status, 429, text)
    assert.equal(JSON.parse(text).error?.details?.limit ?? JSON.parse(text).details?.limit, limit, text)
  }
  try {
    await begin()
    await begin()
    await refusedAs('transfers')
    await begin(other)
    await refusedAs('transfersInAll', other)
    await begin(third)
    open.pop()?.destroy()
    open.pop()?.destroy()
    await until(async () => (await uploads()).length === open.length)
    await begin(other)
  } finally {
    for (const sent of open) sent.destroy()
  }
  await until(async () => (await uploads()).length === 0)
})
