import assert from 'node:assert/strict'
import { appendFile, chmod, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { BASE_IMAGE } from '@icebox/node'
import { isIceboxError, type Sandbox } from '@icebox/sdk'
import { eventually, output, ServerProcess } from './server-process.ts'

/** What can be seen of a server from outside: events, logs, measurements, lines. */

const COUNTING = [
  'sh',
  '-c',
  'echo ready; n=0; while :; do n=$((n+1)); echo line $n; echo err $n >&2; sleep 0.05; done',
]

let server: ServerProcess
before(async () => {
  server = await ServerProcess.start('observability')
  await server.icebox.templates.build({
    name: 'counting',
    image: BASE_IMAGE,
    size: { memoryMiB: 128 },
    startCommand: COUNTING,
  })
})
after(() => server[Symbol.asyncDispose]())

const metrics = async (): Promise<string> => {
  const key = (await readFile(join(server.dataDirectory, 'key'), 'utf8')).trim()
  const response = await fetch(`${server.icebox.url}/metrics`, { headers: { authorization: `Bearer ${key}` } })
  assert.equal(response.status, 200)
  return response.text()
}
/** The value of a measurement; 0 when it was never made. */
const measured = (text: string, name: string): number =>
  Number(
    text
      .split('\n')
      .find((line) => line.startsWith(`${name} `))
      ?.split(' ')
      .at(-1) ?? 0,
  )

const stateOf = async (sandbox: Sandbox) => (await sandbox.info()).status.state

const textOf = async (logs: AsyncIterable<Uint8Array>) => Buffer.concat(await Array.fromAsync(logs)).toString()

test('what a start command writes can be read while it runs, while the sandbox is paused, and goes on without a gap', async () => {
  await using sandbox = await server.icebox.sandboxes.create({ template: 'counting' })
  await eventually(async () => (/line \d+/.test(await textOf(await sandbox.logs())) ? true : undefined), 'a first line')
  await sandbox.pause()
  const paused = await textOf(await sandbox.logs())
  assert.match(paused, /^ready\n/)
  await sandbox.resume()
  const lastOf = (text: string) => Math.max(...[...text.matchAll(/^line (\d+)$/gm)].map(([, n]) => Number(n)))
  const until = lastOf(paused) + 5
  let text = ''
  for await (const piece of await sandbox.logs({ follow: true })) {
    text += Buffer.from(piece).toString()
    if (text.includes(`line ${until}\n`)) break
  }
  const numbers = [...text.matchAll(/^line (\d+)$/gm)].map(([, n]) => Number(n))
  assert.deepEqual(
    numbers,
    numbers.map((_, index) => index + 1),
    'each line is there once, in order',
  )
  const entries = await Array.fromAsync(sandbox.logEntries())
  const became = entries
    .filter(({ source, of }) => source === 'lifecycle' && of === undefined)
    .map(({ text: said }) => said)
  assert.deepEqual(became, ['creating', 'running', 'pausing', 'paused', 'resuming', 'running'])
})

test('the end of an entrypoint is told, and why a sandbox has failed can still be read', async () => {
  await using sandbox = await server.icebox.sandboxes.create({
    image: BASE_IMAGE,
    resourceLimits: { memory: '128Mi' },
    entrypoint: ['sh', '-c', 'echo hello from the entrypoint; exit 7'],
  })
  await eventually(async () => {
    const entries = await Array.fromAsync(sandbox.logEntries())
    return entries.find(({ text }) => text === 'the entrypoint process ended with status 7')
  }, 'the end of the entrypoint in the log')
  assert.equal(await textOf(await sandbox.logs()), 'hello from the entrypoint\n')
  await Promise.allSettled([sandbox.exec(['python3', '-c', 'b"x" * (1 << 30)'])])
  await eventually(async () => (await stateOf(sandbox)) === 'Failed' || undefined, 'out of memory')
  assert.equal(await textOf(await sandbox.logs()), 'hello from the entrypoint\n')
})

test('logs of a sandbox that is gone are gone, and an unknown one has none', async () => {
  const sandbox = await server.icebox.sandboxes.create({ template: 'counting' })
  await sandbox.delete()
  await assert.rejects(sandbox.logs(), (error) => isIceboxError(error, 'NotFound'))
})

test('every transition is one event, in order, over a restart of the server, which loses none and doubles none', async () => {
  const sandbox = await server.icebox.sandboxes.create({ template: 'counting' })
  await sandbox.pause()
  await sandbox.resume()
  const seen: string[] = []
  const following = (async () => {
    for await (const event of server.icebox.events.follow({ resource: sandbox.id })) {
      seen.push(event.to)
      if (event.to === 'deleted') return
    }
  })()
  await sandbox.delete()
  await following
  const wanted = ['creating', 'running', 'pausing', 'paused', 'resuming', 'running', 'deleting', 'deleted']
  assert.deepEqual(seen, wanted)
  const kept = await server.icebox.sandboxes.create({ template: 'counting' })
  await server.kill()
  await server.restart()
  const told = async (resource: string) => (await server.icebox.events.list({ resource })).map(({ to }) => to)
  assert.deepEqual(await told(sandbox.id), wanted)
  assert.deepEqual(await told(kept.id), ['creating', 'running'])
  assert.equal(await output((await server.icebox.sandboxes.connect(kept.id)).exec(['echo', 'alive'])), 'alive')
  await (await server.icebox.sandboxes.connect(kept.id)).delete()
})

test('server-sent events are what EventSource understands', async () => {
  const key = (await readFile(join(server.dataDirectory, 'key'), 'utf8')).trim()
  const leaving = new AbortController()
  const response = await fetch(`${server.icebox.url}/v1/events`, {
    headers: { 'x-api-key': key, accept: 'text/event-stream', 'last-event-id': '1' },
    signal: leaving.signal,
  })
  assert.equal(response.headers.get('content-type'), 'text/event-stream')
  let text = ''
  for await (const piece of response.body ?? []) {
    text += Buffer.from(piece).toString()
    if (text.includes('\n\n')) break
  }
  leaving.abort()
  const [first = ''] = text.split('\n\n')
  const [id, event, data] = first.split('\n')
  assert.equal(id, 'id: 2')
  assert.match(event ?? '', /^event: (sandbox|snapshot|template)\.[a-z]+$/)
  assert.equal(JSON.parse(data?.slice('data: '.length) ?? '').id, 2)
})

test('restores are counted by what became of them, and a template whose snapshot is damaged boots cold', async () => {
  const before = await metrics()
  const count = (text: string, result: string) => measured(text, `icebox_restores_total{result="${result}"}`)
  await using good = await server.icebox.sandboxes.create({ template: 'counting' })
  await good.pause()
  const after = await metrics()
  assert.equal(count(after, 'intent') - count(before, 'intent'), 1)
  assert.equal(count(after, 'success') - count(before, 'success'), 1)
  const operation = 'icebox_operation_duration_seconds_count{operation="pause",outcome="success",code=""}'
  assert.equal(measured(after, operation) - measured(before, operation), 1)
  assert.ok(measured(after, 'icebox_operation_phase_duration_seconds_count{operation="pause",phase="save"}') > 0)
  assert.equal(measured(after, 'icebox_sandboxes{project="default",state="paused"}'), 1)

  const { snapshotId = '' } = await server.icebox.templates.get('counting')
  const manifest = join(server.dataDirectory, 'snapshots', snapshotId, 'manifest.json')
  await chmod(manifest, 0o600)
  await appendFile(manifest, 'damaged')
  await using cold = await server.icebox.sandboxes.create({ template: 'counting' })
  assert.equal(await output(cold.exec(['echo', 'alive'])), 'alive')
  await eventually(async () => /^ready\n/.test(await textOf(await cold.logs())) || undefined, 'its first words')
  const last = await metrics()
  assert.equal(count(last, 'cold_fallback') - count(after, 'cold_fallback'), 1)
  assert.equal(count(last, 'failure'), count(after, 'failure'))
  assert.equal(count(last, 'intent'), count(last, 'success') + count(last, 'cold_fallback') + count(last, 'failure'))
})

test('each operation is one line of the log, with its phases', async () => {
  await using sandbox = await server.icebox.sandboxes.create({ image: BASE_IMAGE })
  const line = await eventually(async () => {
    const lines = (await readFile(join(server.dataDirectory, 'server.log'), 'utf8')).trim().split('\n')
    const own = lines.map((text) => JSON.parse(text)).filter((each) => each.sandbox === sandbox.id)
    const operations = own.filter(({ event }) => event === 'operation')
    assert.ok(operations.length <= 1)
    return operations[0]
  }, 'the line of the create')
  assert.equal(line.operation, 'create')
  assert.equal(line.outcome, 'success')
  assert.equal(line.project, 'default')
  assert.ok(line.ms > 0)
  assert.deepEqual(Object.keys(line.phases).sort(), ['check', 'hello', 'restore'])
})

test('measurements are not for who has no key', async () => {
  assert.equal((await fetch(`${server.icebox.url}/metrics`)).status, 401)
})
