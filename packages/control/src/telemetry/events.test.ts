import assert from 'node:assert/strict'
import { appendFile, mkdir, readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { newSandboxId, type WireEvent } from '@icebox/model'
import type { Change } from '../cache/cache.ts'
import { openTestStore, SPEC, statusOf } from '../testing.ts'
import { type EventLimits, Events } from './events.ts'
import { tellMissed, tellTransitions } from './transitions.ts'

async function place(t: TestContext) {
  const { cache, recordsOf, directory } = await openTestStore(t)
  const log: unknown[] = []
  const open = (limits?: EventLimits) => Events.open(join(directory, 'events'), (...line) => log.push(line), limits)
  await mkdir(join(directory, 'events'))
  let telling: ((change: Change) => void) | undefined
  cache.onChange((change) => telling?.(change))
  /** Transitions are told to these from here on. */
  const tell = (events: Events | undefined) => {
    telling = events === undefined ? undefined : tellTransitions(events)
  }
  const missed = (events: Events) => tellMissed(events, { cache, project: (name) => ({ records: recordsOf(name) }) })
  return { directory: join(directory, 'events'), open, log, records: recordsOf('mine'), tell, missed }
}

const moves = (events: { from?: string | undefined; to: string }[]) => events.map(({ from, to }) => `${from}→${to}`)

test('each transition is one event, and what leaves the state as it was is none', async (t) => {
  const { open, records, tell } = await place(t)
  const events = await open()
  tell(events)
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
  const { directory, open, records, tell } = await place(t)
  const first = await open()
  tell(first)
  await records.create('Sandbox', newSandboxId(), { spec: SPEC, status: statusOf('creating') })
  await first.close()
  const file = join(directory, 'mine.present.jsonl')
  await appendFile(file, '{"id":2,"at":"20')
  const second = await open()
  assert.deepEqual(second.list({}), first.list({}))
  tell(second)
  await records.create('Sandbox', newSandboxId(), {
    spec: SPEC,
    status: statusOf('creating'),
  })
  const number = second.list({}).at(-1)?.id
  assert.ok(number !== undefined && number > 2, 'after those that followers may have seen before the crash')
  await second.close()
  const lines = (await readFile(file, 'utf8')).trim().split('\n')
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
      project: 'mine',
      get resource() {
        return looked++ < 0 ? '' : 'r1'
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
  const { open, records, tell, missed } = await place(t)
  const events = await open()
  tell(events)
  const [moved, gone, known, unknown] = [newSandboxId(), newSandboxId(), newSandboxId(), newSandboxId()]
  for (const name of [moved, gone, known])
    await records.create('Sandbox', name, { spec: SPEC, status: statusOf('creating') })
  tell(undefined)
  await records.setStatus('Sandbox', moved, ({ status }) => ({ ...status, state: 'running' }))
  await records.remove('Sandbox', gone)
  await records.create('Sandbox', unknown, { spec: SPEC, status: statusOf('creating') })
  await missed(events)
  const told = events.list({ after: 3 })
  assert.deepEqual(
    told.map(({ resource, from, to }) => [resource, from, to]).sort(),
    [
      [moved, 'creating', 'running'],
      [gone, 'creating', 'deleted'],
      [unknown, undefined, 'creating'],
    ].sort(),
  )
  await missed(events)
  assert.equal(events.list({}).length, 6)
  await events.close()
})

test('who follows gets what was and what comes, in order, until it leaves', async (t) => {
  const { open, records, tell } = await place(t)
  const events = await open()
  tell(events)
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
  const { open, records, tell } = await place(t)
  const events = await open()
  tell(events)
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

test('who follows gets each event once and in order, however many there are, also only those of one resource', async (t) => {
  const { open } = await place(t)
  const events = await open()
  fill(events, 'mine', 1000)
  const leaving = new AbortController()
  const ids: number[] = []
  for await (const { id } of events.follow({ project: 'mine' }, leaving.signal)) {
    ids.push(id)
    if (id === 500) fill(events, 'mine', 500)
    if (id === 1500) leaving.abort()
  }
  assert.deepEqual(
    ids,
    Array.from({ length: 1500 }, (_, at) => at + 1),
  )
  const own: number[] = []
  for await (const { id } of events.follow(
    { project: 'mine', resource: 'r999', after: 5 },
    AbortSignal.timeout(60_000),
  )) {
    own.push(id)
    if (own.length === 1) fill(events, 'mine', 1000)
    if (own.length === 2) break
  }
  assert.deepEqual(own, [1000, 2500])
  await events.close()
})

test('what was told so long ago that it is forgotten is not told again', async (t) => {
  const { open, records, tell, missed } = await place(t)
  const first = await open(SMALL)
  tell(first)
  await records.create('Sandbox', newSandboxId(), { spec: SPEC, status: statusOf('creating') })
  const at = new Date(Date.now() + 1000).toISOString()
  fill(first, 'mine', 500, at)
  // Others that kept all of theirs say nothing about this one.
  first.append({ at: '2020-01-01T00:00:00.000Z', project: 'other', kind: 'Sandbox', resource: 'r', to: 'deleted' })
  await first.close()
  const second = await open(SMALL)
  await missed(second)
  assert.equal(second.list({}).at(-1)?.id, 502)
  await second.close()
})

/** Bounds that a test reaches soon. */
const SMALL: EventLimits = {
  projects: 20,
  bytes: 200_000,
  projectBytes: { most: 40_000, least: 2000 },
  projectEvents: 1000,
  text: 2000,
}

function fill(events: Events, project: string, count: number, at = new Date().toISOString(), message = ''): void {
  for (let n = 0; n < count; n++)
    events.append({ at, project, kind: 'Sandbox', resource: `r${n}`, to: 'deleted', ...(message && { message }) })
}

const bytesOf = (events: WireEvent[]): number =>
  events.reduce((sum, event) => sum + Buffer.byteLength(`${JSON.stringify(event)}\n`), 0)

test('a flood of one project pushes out none of the events of another, in memory, on disk and for who follows', async (t) => {
  const { directory, open } = await place(t)
  const events = await open(SMALL)
  fill(events, 'honest', 10)
  const honest = events.list({ project: 'honest' })
  const leaving = new AbortController()
  const seen: number[] = []
  const following = (async () => {
    for await (const { id, to } of events.follow({ project: 'honest' }, leaving.signal)) {
      seen.push(id)
      if (to === 'running') return
    }
  })()
  // Many small ones, and few large ones with characters that grow on the way to the disk.
  fill(events, 'flood', 20_000)
  fill(events, 'flood', 500, undefined, '\u0001'.repeat(100_000))
  assert.ok(bytesOf(events.list({ project: 'flood' })) <= SMALL.projectBytes.most)
  events.append({ at: new Date().toISOString(), project: 'honest', kind: 'Sandbox', resource: 'r', to: 'running' })
  await following
  assert.equal(seen.length, 11)
  assert.deepEqual(events.list({ project: 'honest' }).slice(0, 10), honest)
  const before = events.list({})
  assert.deepEqual(
    before.map(({ id }) => id),
    before.map(({ id }) => id).toSorted((a, b) => a - b),
  )
  await events.close()
  const again = await open(SMALL)
  assert.deepEqual(again.list({}), before)
  fill(again, 'honest', 1)
  assert.ok((again.list({ project: 'honest', after: seen.at(-1) ?? 0 })[0]?.id ?? 0) > (before.at(-1)?.id ?? 0))
  await again.close()
  const sizes = await Promise.all(
    (await readdir(directory)).map(async (name) => (await stat(join(directory, name))).size),
  )
  assert.ok(sizes.every((size) => size <= SMALL.projectBytes.most))
})

test('many projects share what there is; beyond their number that which was silent longest is forgotten', async (t) => {
  const { directory, open } = await place(t)
  const events = await open(SMALL)
  fill(events, 'quiet', 5)
  for (let n = 0; n < SMALL.projects - 1; n++) fill(events, `p${n}`, 1000)
  assert.ok(bytesOf(events.list({})) <= SMALL.bytes)
  assert.equal(events.list({ project: 'quiet' }).length, 5)
  for (let n = 0; n < SMALL.projects - 1; n++) assert.ok(events.list({ project: `p${n}` }).length > 10, `p${n}`)
  fill(events, 'new', 3)
  assert.deepEqual(events.list({ project: 'quiet' }), [])
  assert.equal(events.isForgotten('quiet', new Date().toISOString()), true)
  assert.equal(events.list({ project: 'new' }).length, 3)
  const all = events.list({})
  await events.close()
  const again = await open(SMALL)
  assert.deepEqual(again.list({}), all)
  await again.close()
  const projects = new Set(
    (await readdir(directory)).filter((name) => name.endsWith('.jsonl')).map((name) => name.split('.')[0]),
  )
  assert.equal(projects.size, SMALL.projects)
})

test('what an earlier version kept in one file for all is taken over', async (t) => {
  const { directory, open } = await place(t)
  const event = (id: number, project: string) => ({
    ...{ id, at: new Date().toISOString(), project, kind: 'Sandbox', resource: 'r', to: 'running' },
  })
  const lines = (of: object[]) => of.map((each) => `${JSON.stringify(each)}\n`).join('')
  const [older, present] = [[event(1, 'a'), event(2, 'b')], [event(7, 'a')]]
  await writeFile(join(directory, 'events.1.jsonl'), lines(older))
  await writeFile(join(directory, 'events.jsonl'), lines(present))
  const events = await open()
  assert.deepEqual(events.list({}), [...older, ...present])
  fill(events, 'a', 1)
  assert.ok((events.list({ project: 'a' }).at(-1)?.id ?? 0) > 7)
  await events.close()
  const again = await open()
  assert.equal(again.list({}).length, 4)
  assert.equal((await readdir(directory)).includes('events.jsonl'), false)
  await again.close()
})

test('files that are named after no project are left alone, and lines of other projects are not taken', async (t) => {
  const { directory, open } = await place(t)
  const foreign = { id: 1, at: new Date().toISOString(), project: 'b', kind: 'Sandbox', resource: 'r', to: 'running' }
  for (const name of ['a.present.jsonl', '..present.jsonl', 'A.present.jsonl', 'x'])
    await writeFile(join(directory, name), `${JSON.stringify(foreign)}\nno JSON\n`)
  const events = await open()
  assert.deepEqual(events.list({}), [])
  await events.close()
  assert.equal((await readdir(directory)).includes('A.present.jsonl'), true)
})
