import assert from 'node:assert/strict'
import { mkdir, mkdtemp, rm, stat, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { BASE_IMAGE } from '@icebox/node'
import { Icebox, isIceboxError, type Sandbox } from '@icebox/sdk'
import { eventually, output, ServerProcess } from './server-process.ts'

/** Small enough for a test to reach them. */
const LIMITS = { sandboxes: 12, forks: 6, starts: 3, queue: 4, queueSeconds: 20 }

let server: ServerProcess
let directory: string
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'icebox-limits-'))
  const file = join(directory, 'limits.json')
  await writeFile(file, JSON.stringify(LIMITS))
  server = await ServerProcess.start('limits', { flags: ['--no-base', '--limits', file] })
  const image = await server.icebox.images.pull(BASE_IMAGE)
  const size = { memoryMiB: 128 }
  await server.icebox.templates.build({ name: 'base', image: image.digest, size })
  await server.icebox.templates.build({ name: 'keeping', image: image.digest, size, keepSnapshots: 2 })
})
after(async () => {
  await server[Symbol.asyncDispose]()
  await rm(directory, { recursive: true, force: true })
})

const create = (idempotencyKey?: string, more: { entrypoint?: string[]; metadata?: Record<string, string> } = {}) =>
  server.icebox.sandboxes.create({
    template: 'base',
    ...(idempotencyKey === undefined ? {} : { idempotencyKey }),
    ...more,
  })
const listed = async () => (await server.icebox.sandboxes.list()).map(({ id }) => id)
const isBusy = (error: unknown) => isIceboxError(error, 'TooManyRequests')
const removeAll = (sandboxes: Sandbox[]) => Promise.all(sandboxes.map((sandbox) => sandbox.delete()))

test('a create that is repeated with its key makes one sandbox, over a crash too', async () => {
  const all = await Promise.all(Array.from({ length: 4 }, () => create('one')))
  const [first] = all
  assert.ok(first)
  assert.deepEqual([...new Set(all.map(({ id }) => id))], [first.id])
  await output(first.exec(['sh', '-c', 'echo here > /tmp/mark']))
  await assert.rejects(create('one', { metadata: { other: 'body' } }), (error) => isIceboxError(error, 'Conflict'))
  await server.kill()
  await server.restart()
  const again = await create('one')
  assert.equal(again.id, first.id)
  assert.equal(await output(again.exec(['cat', '/tmp/mark'])), 'here')
  assert.deepEqual(await listed(), [first.id])
  const other = await server.icebox.keys.create({ project: 'other' })
  const elsewhere = new Icebox({ url: server.icebox.url, apiKey: other.key })
  await assert.rejects(elsewhere.sandboxes.create({ template: 'base', idempotencyKey: 'one' }), (error) =>
    isIceboxError(error, 'NotFound'),
  )
  await again.pause()
  const paused = await create('one')
  assert.deepEqual([paused.id, paused.resource.status.state], [first.id, 'Paused'])
  await again.delete()
  await assert.rejects(create('one'), (error) => isIceboxError(error, 'Conflict') && /deleted at/.test(error.message))
  assert.deepEqual(await listed(), [])
})

test('a create that is interrupted by a crash and repeated makes one sandbox', async () => {
  const interrupted = create('interrupted').catch(() => undefined)
  await eventually(async () => (await listed())[0], 'the create is written')
  await server.kill()
  await interrupted
  await server.restart()
  await using sandbox = await create('interrupted')
  assert.deepEqual(await listed(), [sandbox.id])
  assert.equal(await output(sandbox.exec(['echo', 'hi'])), 'hi')
})

test('a create that failed leaves nothing, and its key may be used again', async () => {
  const failing = () => create('failing', { entrypoint: ['/no/such/program'] })
  for (let time = 0; time < 2; time += 1) {
    const outcomes = await Promise.allSettled([failing(), failing(), failing()])
    for (const outcome of outcomes) {
      assert.equal(outcome.status, 'rejected')
      if (outcome.status === 'rejected') assert.ok(!isIceboxError(outcome.reason, 'Conflict'), String(outcome.reason))
    }
    assert.deepEqual(await listed(), [])
  }
  await using sandbox = await create('failing')
  assert.ok(sandbox.id)
})

test('over the limit of a project nothing is started, and what was refused has left nothing', async () => {
  const outcomes = await Promise.allSettled(
    Array.from({ length: 40 }, async () => {
      for (;;) {
        try {
          return await create()
        } catch (error) {
          // Only the queue is worth another try.
          if (!isBusy(error) || !isIceboxError(error) || error.details.retryAfterSeconds === undefined) throw error
          await sleep(50)
        }
      }
    }),
  )
  const made = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []))
  for (const outcome of outcomes)
    if (outcome.status === 'rejected')
      assert.ok(isBusy(outcome.reason) && outcome.reason.details.limit === 'sandboxes', String(outcome.reason))
  assert.equal(made.length, LIMITS.sandboxes)
  assert.deepEqual((await listed()).sort(), made.map(({ id }) => id).sort())
  const [first, second, ...others] = made
  assert.ok(first && second)
  await assert.rejects(first.fork(1), isBusy)
  assert.deepEqual(await server.icebox.snapshots.list({ hidden: true, sandbox: first.id }), [])
  await first.pause()
  const replacement = await create()
  await assert.rejects(first.resume(), isBusy)
  assert.equal((await first.info()).status.state, 'Paused')
  await second.delete()
  await first.resume()
  await removeAll([first, replacement, ...others])
})

test('what comes while too much is being started is refused with the time to come back, and leaves nothing', async () => {
  const { url } = server.icebox
  const { key } = await server.icebox.keys.create({ project: 'default' })
  const answers = await Promise.all(
    Array.from({ length: 60 }, async () => {
      const response = await fetch(`${url}/v1/sandboxes`, {
        method: 'POST',
        headers: { 'x-api-key': key, 'content-type': 'application/json', prefer: 'wait=120' },
        body: JSON.stringify({ template: 'base' }),
      })
      return {
        status: response.status,
        retryAfter: response.headers.get('retry-after'),
        body: JSON.parse(await response.text()),
      }
    }),
  )
  const made = answers.filter(({ status }) => status === 202)
  const refused = answers.filter(({ status }) => status !== 202)
  assert.ok(made.length >= LIMITS.starts + LIMITS.queue && refused.length > 0, `${made.length} made`)
  for (const { status, retryAfter, body } of refused) {
    assert.equal(status, 429, JSON.stringify(body))
    if (body.details?.limit !== 'sandboxes') assert.equal(retryAfter, String(LIMITS.queueSeconds))
  }
  assert.deepEqual((await listed()).sort(), made.map(({ body }) => body.id).sort())
  for (const { body } of made) await (await server.icebox.sandboxes.connect(body.id)).delete()
})

test('a fork of more than a call may make is refused, one of as many as fit succeeds', async () => {
  await using source = await create()
  await assert.rejects(source.fork(LIMITS.forks + 1), isBusy)
  const children = await source.fork(LIMITS.forks)
  assert.equal(children.length, LIMITS.forks)
  await assert.rejects(source.fork(LIMITS.forks), isBusy)
  await removeAll(children)
  await eventually(
    async () =>
      (await server.icebox.snapshots.list({ hidden: true, sandbox: source.id })).length === 0 ? true : undefined,
    'no snapshot of a fork is left',
  )
})

test('usage counts the seconds that a sandbox has run, and is kept when it is gone', async () => {
  const began = performance.now()
  const sandbox = await create()
  const ran = performance.now()
  await sleep(1200)
  await sandbox.pause()
  const paused = (performance.now() - began) / 1000
  await sleep(1500)
  const usageOf = async () => (await server.icebox.usage()).find(({ sandboxId }) => sandboxId === sandbox.id)
  const one = await usageOf()
  assert.ok(one && one.runningSeconds >= 1.2 && one.runningSeconds <= paused, JSON.stringify(one))
  assert.equal(one.memoryMiBSeconds, one.runningSeconds * 128)
  assert.equal(one.deletedAt, undefined)
  assert.deepEqual(await usageOf(), one, 'a paused one uses nothing')
  await sandbox.resume()
  await sleep(200)
  await sandbox.delete()
  const gone = await usageOf()
  assert.ok(gone && gone.runningSeconds >= one.runningSeconds + 0.2)
  assert.ok(gone.runningSeconds < (performance.now() - ran) / 1000 + 5 - 1.5)
  assert.ok(gone.deletedAt)
  await server.kill()
  await server.restart()
  assert.deepEqual(await usageOf(), gone)
  const { createdAt } = gone
  const between = async (from: string | undefined, to: string | undefined) =>
    (await server.icebox.usage({ from, to })).some(({ sandboxId }) => sandboxId === sandbox.id)
  assert.equal(await between(undefined, createdAt), false)
  assert.equal(await between(new Date(Date.parse(gone.deletedAt) + 1).toISOString(), undefined), false)
  assert.equal(await between(createdAt, undefined), true)
})

test('snapshots go when their time is over, which a restart does not change', async () => {
  const sandbox = await create()
  const kept = await sandbox.snapshot()
  const expiresAt = new Date(Date.now() + 2500).toISOString()
  const brief = await sandbox.snapshot({ expiresAt })
  assert.equal(brief.expiresAt, expiresAt)
  await assert.rejects(sandbox.snapshot({ expiresAt: '2020-01-01T00:00:00Z' }), (error) =>
    isIceboxError(error, 'InvalidArgument'),
  )
  await server.kill()
  await server.restart()
  await eventually(async () => {
    const ids = (await server.icebox.snapshots.list()).map(({ id }) => id)
    return ids.includes(brief.id) ? undefined : true
  }, 'the snapshot goes')
  assert.ok(Date.now() >= Date.parse(expiresAt))
  assert.deepEqual(
    (await server.icebox.snapshots.list()).map(({ id }) => id),
    [kept.id],
  )
  await server.icebox.snapshots.delete(kept.id)
  await (await server.icebox.sandboxes.connect(sandbox.id)).delete()
})

test('a template keeps so many snapshots of its sandboxes, and others are left alone', async () => {
  await using keeping = await server.icebox.sandboxes.create({ template: 'keeping' })
  await using other = await create()
  const foreign = await other.snapshot()
  const taken: string[] = []
  for (let count = 0; count < 4; count += 1) taken.push((await keeping.snapshot()).id)
  await eventually(async () => {
    const ids = (await server.icebox.snapshots.list()).map(({ id }) => id)
    return ids.length === 3 ? true : undefined
  }, 'the oldest go')
  const ids = (await server.icebox.snapshots.list()).map(({ id }) => id)
  assert.deepEqual(ids.sort(), [foreign.id, ...taken.slice(2)].sort())
  for (const id of ids) await server.icebox.snapshots.delete(id)
})

test('collect tells what it removes, and removes what it told', async () => {
  const temporary = join(server.dataDirectory, 'tmp', 'left-behind')
  await mkdir(temporary)
  await writeFile(join(temporary, 'part'), Buffer.alloc(100_000, 1))
  const fresh = join(server.dataDirectory, 'tmp', 'in-use')
  await writeFile(fresh, 'x')
  const old = new Date(Date.now() - 2 * 86_400_000)
  for (const path of [join(temporary, 'part'), temporary]) await utimes(path, old, old)
  const told = await server.icebox.collect({ dryRun: true })
  assert.deepEqual(
    told.items.map(({ what, id }) => [what, id]),
    [['file', temporary]],
  )
  assert.ok(told.bytes >= 100_000)
  await stat(temporary)
  assert.deepEqual((await server.icebox.collect()).items, told.items)
  await assert.rejects(stat(temporary), { code: 'ENOENT' })
  await stat(fresh)
  assert.deepEqual((await server.icebox.collect()).items, [])
  await rm(fresh)
})

test('a list by parts has everything once that is there throughout', async () => {
  const sandboxes: Sandbox[] = []
  for (let count = 0; count < 5; count += 1) sandboxes.push(await create())
  const { key } = await server.icebox.keys.create({ project: 'default' })
  const part = async (after: string | undefined) => {
    const query = new URLSearchParams({ pageSize: '2', ...(after === undefined ? {} : { after }) })
    const response = await fetch(`${server.icebox.url}/v1/sandboxes?${query}`, { headers: { 'x-api-key': key } })
    assert.equal(response.status, 200)
    const { items, pagination } = JSON.parse(await response.text())
    return { ids: items.map(({ id }: { id: string }) => id), next: pagination.nextToken }
  }
  const [oldest, , middle, , newest] = sandboxes
  const first = await part(undefined)
  await newest?.delete()
  sandboxes.push(await create())
  const second = await part(first.next)
  await middle?.delete()
  const third = await part(second.next)
  assert.equal(third.next, undefined)
  const seen = [...first.ids, ...second.ids, ...third.ids]
  assert.equal(new Set(seen).size, seen.length)
  for (const sandbox of sandboxes.slice(0, 5))
    assert.ok(seen.includes(sandbox.id), `${sandbox.id} of ${oldest?.id} and its like is missing`)
  const gone = [middle, newest]
  await removeAll(sandboxes.filter((sandbox) => !gone.includes(sandbox)))
})

test('of creates that fail the newest few are kept, and nothing large is', async () => {
  const { key } = await server.icebox.keys.create({ project: 'failing' })
  const call = async (method: string, path: string, body: object) => {
    const headers = { 'x-api-key': key, 'content-type': 'application/json' }
    const response = await fetch(`${server.icebox.url}${path}`, { method, headers, body: JSON.stringify(body) })
    return { status: response.status, body: JSON.parse(await response.text()) }
  }
  // Nothing is at this place that could be pulled.
  const image = { image: { uri: '127.0.0.1:1/nothing' }, resourceLimits: { memory: '128Mi' } }
  const large = await call('POST', '/v1/sandboxes', { ...image, env: { A: 'a'.repeat(70_000) } })
  assert.deepEqual([large.status, large.body.code], [413, 'TooLarge'])

  const inState = async (state: string): Promise<number> => {
    const response = await fetch(`${server.icebox.url}/v1/sandboxes?state=${state}`, { headers: { 'x-api-key': key } })
    return JSON.parse(await response.text()).pagination.totalItems
  }
  // As many at once as the project may have.
  for (let round = 0; round < 5; round += 1) {
    const accepted = await Promise.all(
      Array.from({ length: 6 }, () => call('POST', '/v1/sandboxes', { ...image, env: { A: 'a'.repeat(60_000) } })),
    )
    for (const { status } of accepted) assert.equal(status, 202)
    await eventually(async () => ((await inState('Pending')) === 0 ? true : undefined), 'the creates have failed')
  }
  await eventually(async () => ((await inState('Failed')) === 20 ? true : undefined), 'the oldest are gone')
})

test('metadata that grows by small steps is bounded as a whole', async () => {
  const sandbox = await create()
  const { key } = await server.icebox.keys.create({ project: 'default' })
  let refused = 0
  for (let step = 0; step < 10; step += 1) {
    const patch = Object.fromEntries(Array.from({ length: 10 }, (_, at) => [`k${step}-${at}`, 'v'.repeat(1000)]))
    const response = await fetch(`${server.icebox.url}/v1/sandboxes/${sandbox.id}/metadata`, {
      method: 'PATCH',
      headers: { 'x-api-key': key, 'content-type': 'application/merge-patch+json' },
      body: JSON.stringify(patch),
    })
    if (response.status === 413) refused += 1
    else assert.equal(response.status, 200)
  }
  assert.equal(refused, 4)
  await sandbox.delete()
})
