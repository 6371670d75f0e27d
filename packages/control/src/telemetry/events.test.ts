import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { appendFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { newSandboxId } from '@icebox/model'
import { Records } from '../records.ts'
import { openTestStore, SPEC, statusOf } from '../testing.ts'
import { Events } from './events.ts'
import { tellMissed, tellTransitions } from './transitions.ts'

async function place(t: TestContext) {
  const { store, directory } = await openTestStore(t)
  const log: unknown[] = []
  const open = () => Events.open(directory, (...line) => log.push(line))
  return { directory, store, open, log }
}

const moves = (events: { from?: string | undefined; to: string }[]) => events.map(({ from, to }) => `${from}→${to}`)

test('each transition is one event, and what leaves the state as it was is none', async (t) => {
  const { store, open } = await place(t)
  const events = await open()
  const records = new Records(store, 'mine', tellTransitions(events))
  const name = newSandboxId()
  await records.create('Sandbox', name, { spec: SPEC, status: statusOf('creating') })
  await records.setStatus('Sandbox', name, ({ status }) => ({ ...status, state: 'running', restoreMs: 1 }))
  await records.setStatus('Sandbox', name, ({ status }) => ({ ...status, restoreMs: 2 }))
  await records.setSpec('Sandbox', name, ({ spec }) => ({ ...spec, metadata: { a: 'b' } }))
  await records.setStatus('Sandbox', name, ({ status }) => ({ ...status, state: 'failed', reason: 'Why' }))
  await records.remove('Sandbox', name)
  const told = events.list({})
  assert.deepEqual(moves(told), ['undefined→creating', 'creating→running', 'running→failed', 'failed→deleted'])
  assert.equal(told[2]?.reason, 'Why')
  assert.deepEqual(
    told.map(({ id }) => id),
    [1, 2, 3, 4],
  )
  assert.ok(told.every(({ project, resource }) => project === 'mine' && resource === name))
  assert.deepEqual(events.list({ project: 'other' }), [])
  assert.deepEqual(events.list({ after: 3 }).length, 1)
  await events.close()
})

test('events outlive the server, numbers go on, and a line cut by a crash is dropped', async (t) => {
  const { directory, store, open } = await place(t)
  const first = await open()
  const records = new Records(store, 'mine', tellTransitions(first))
  await records.create('Sandbox', newSandboxId(), { spec: SPEC, status: statusOf('creating') })
  await first.close()
  await appendFile(join(directory, 'events.jsonl'), '{"id":2,"at":"20')
  const second = await open()
  assert.deepEqual(second.list({}), first.list({}))
  await new Records(store, 'mine', tellTransitions(second)).create('Sandbox', newSandboxId(), {
    spec: SPEC,
    status: statusOf('creating'),
  })
  const number = second.list({}).at(-1)?.id
  assert.ok(number !== undefined && number > 2, 'after those that followers may have seen before the crash')
  await second.close()
  const lines = (await readFile(join(directory, 'events.jsonl'), 'utf8')).trim().split('\n')
  assert.deepEqual(
    lines.map((line) => JSON.parse(line).id),
    [1, number],
  )
})

test('of those kept only the new ones are looked at', async (t) => {
  const { open } = await place(t)
  const append = (to: Events, count: number) => {
    for (let at = 0; at < count; at++)
      to.append({
        at: new Date().toISOString(),
        project: 'mine',
        kind: 'Sandbox',
        resource: `r${at % 2}`,
        to: 'running',
      })
  }
  const first = await open()
  append(first, 100)
  await first.close()
  // Numbers are left out between the two.
  const events = await open()
  append(events, 100)
  const all = events.list({})
  assert.equal(all.length, 200)
  for (const after of [0, 1, 99, 100, 101, 500, ...all.slice(-3).map(({ id }) => id), 1_000_000]) {
    let looked = 0
    const filter = {
      after,
      resource: 'r1',
      get project() {
        looked++
        return 'mine'
      },
    }
    const later = all.filter(({ id }) => id > after)
    assert.deepEqual(
      events.list(filter),
      later.filter(({ resource }) => resource === 'r1'),
    )
    assert.equal(looked, later.length)
  }
  await events.close()
})

test('what a crash kept from being told is told at the next start, once', async (t) => {
  const { store, open } = await place(t)
  const events = await open()
  const told = new Records(store, 'mine', tellTransitions(events))
  const untold = new Records(store, 'mine', () => undefined)
  const [moved, gone, known, unknown] = [newSandboxId(), newSandboxId(), newSandboxId(), newSandboxId()]
  for (const name of [moved, gone, known])
    await told.create('Sandbox', name, { spec: SPEC, status: statusOf('creating') })
  await untold.setStatus('Sandbox', moved, ({ status }) => ({ ...status, state: 'running' }))
  await untold.remove('Sandbox', gone)
  await untold.create('Sandbox', unknown, { spec: SPEC, status: statusOf('creating') })
  await tellMissed(events, told)
  const missed = events.list({ after: 3 })
  assert.deepEqual(
    missed.map(({ resource, from, to }) => [resource, from, to]).sort(),
    [
      [moved, 'creating', 'running'],
      [gone, 'creating', 'deleted'],
      [unknown, undefined, 'creating'],
    ].sort(),
  )
  await tellMissed(events, told)
  assert.equal(events.list({}).length, 6)
  await events.close()
})

test('who follows gets what was and what comes, in order, until it leaves', async (t) => {
  const { store, open } = await place(t)
  const events = await open()
  const records = new Records(store, 'mine', tellTransitions(events))
  const name = newSandboxId()
  await records.create('Sandbox', name, { spec: SPEC, status: statusOf('creating') })
  const leaving = new AbortController()
  const seen: string[] = []
  const following = (async () => {
    for await (const { to } of events.follow({ resource: name }, leaving.signal)) {
      seen.push(to)
      if (to === 'deleted') leaving.abort()
    }
  })()
  await records.create('Sandbox', newSandboxId(), { spec: SPEC, status: statusOf('creating') })
  await records.setStatus('Sandbox', name, ({ status }) => ({ ...status, state: 'running' }))
  await records.remove('Sandbox', name)
  await following
  assert.deepEqual(seen, ['creating', 'running', 'deleted'])
  await events.close()
})

test('who follows slowly misses nothing of what happens meanwhile', async (t) => {
  const { store, open } = await place(t)
  const events = await open()
  const records = new Records(store, 'mine', tellTransitions(events))
  const name = newSandboxId()
  await records.create('Sandbox', name, { spec: SPEC, status: statusOf('creating') })
  const leaving = new AbortController()
  const seen: string[] = []
  for await (const { to } of events.follow({}, leaving.signal)) {
    seen.push(to)
    if (to === 'creating') await records.setStatus('Sandbox', name, ({ status }) => ({ ...status, state: 'running' }))
    if (to === 'running') await records.remove('Sandbox', name)
    if (to === 'deleted') leaving.abort()
  }
  assert.deepEqual(seen, ['creating', 'running', 'deleted'])
  await events.close()
})

test('what was told so long ago that it is forgotten is not told again', async (t) => {
  const { store, open } = await place(t)
  const first = await open()
  const records = new Records(store, 'mine', tellTransitions(first))
  await records.create('Sandbox', newSandboxId(), { spec: SPEC, status: statusOf('creating') })
  const at = new Date(Date.now() + 1000).toISOString()
  const another = { at, project: 'mine', kind: 'Sandbox', resource: newSandboxId(), to: 'deleted' } as const
  for (let count = 0; count < 10_000; count += 1) first.append(another)
  await first.close()
  const second = await open()
  await tellMissed(second, records)
  assert.equal(second.list({}).at(-1)?.id, 10_001)
  await second.close()
})

test('events that a full disk does not take are written, once each and in order, when there is room', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'icebox-events-'))
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'icebox-test', directory])
  t.after(async () => {
    execFileSync('umount', ['--lazy', directory])
    await rm(directory, { recursive: true })
  })
  const failures: unknown[] = []
  const events = await Events.open(directory, (_level, event) => failures.push(event))
  const append = (count: number) => {
    for (let i = 0; i < count; i++)
      events.append({
        at: new Date().toISOString(),
        project: 'mine',
        kind: 'Sandbox',
        resource: newSandboxId(),
        to: 'running',
      })
  }
  const written = async () =>
    (await readFile(join(directory, 'events.jsonl'), 'utf8'))
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line).id)
  append(1)
  while ((await written()).length < 1) await sleep(5, undefined, { signal: t.signal })
  const others = join(directory, 'others')
  await assert.rejects(writeFile(others, Buffer.alloc(2 ** 24)), { code: 'ENOSPC' })
  // More than the page that the file has already.
  append(200)
  while (failures.length === 0) await sleep(5, undefined, { signal: t.signal })
  append(1)
  await rm(others)
  append(1)
  await events.close()
  assert.deepEqual(
    await written(),
    Array.from({ length: 203 }, (_, i) => i + 1),
  )
  assert.deepEqual(failures, ['events.write.failed'])
})
