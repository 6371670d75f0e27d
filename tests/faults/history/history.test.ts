import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import fc from 'fast-check'
import { checkHistory } from './check.ts'
import type { Fault } from './finding.ts'
import { formatHistory, type History, type Operation, ofVerb, parseHistory } from './record.ts'
import { simulate, type Wish } from './simulated.ts'

const FILES = ['/root/a', '/dev/shm/b']
const SEEDED = join(import.meta.dirname, 'seeded')
const run = promisify(execFile)

const VERBS: Record<Wish['verb'], number> = {
  create: 6,
  fork: 3,
  snapshot: 3,
  drop: 1,
  delete: 3,
  pause: 5,
  resume: 5,
  renew: 2,
  expire: 3,
  write: 12,
  read: 12,
  count: 5,
  list: 4,
}
const verb = fc.oneof(
  ...Object.entries(VERBS).map(([name, weight]) => ({ weight, arbitrary: fc.constant(name as Wish['verb']) })),
)
const broken = fc.oneof(
  { weight: 12, arbitrary: fc.constant('no' as const) },
  { weight: 1, arbitrary: fc.constantFrom('request' as const, 'answer' as const, 'late' as const) },
)
const milliseconds = fc.integer({ min: 0, max: 20 })
const wish: fc.Arbitrary<Wish> = fc.record({
  ...{ client: fc.integer({ min: 0, max: 4 }), verb, pick: fc.nat(1000), broken },
  ...{ idle: milliseconds, acting: milliseconds, answering: milliseconds },
})
const good = fc.array(wish, { minLength: 1, maxLength: 150, size: 'max' }).map((wishes) => simulate(wishes, FILES))

const faultsOf = (history: History): Set<Fault> => new Set(checkHistory(history).map(({ fault }) => fault))

test('what a correct system did is accepted, whatever broke meanwhile', () => {
  fc.assert(
    fc.property(good, (history) => {
      assert.deepEqual(checkHistory(history), [])
      assert.deepEqual(parseHistory(formatHistory(history)), history)
    }),
    { numRuns: 400 },
  )
})

/** Makes one thing of a good history untrue; undefined when it has no place for that. `pick` chooses among the places. */
type Mutation = (history: History, pick: number) => Operation[] | undefined
const choose = <T>(among: readonly T[], pick: number): T | undefined => among[pick % among.length]
const replace = (history: History, old: Operation, by: Operation): Operation[] =>
  history.map((operation) => (operation === old ? by : operation))
const endOf = (history: History): number => Math.max(...history.map(({ end }) => end))
const censusOf = (history: History) => ofVerb(history, 'census')[0]

/** Sandboxes of acknowledged creates whose delete nobody asked for. */
const kept = (history: History): string[] =>
  ofVerb(history, 'create')
    .flatMap(({ outcome }) => (outcome.is === 'ok' ? [outcome.sandbox] : []))
    .filter((id) => ofVerb(history, 'delete').every(({ sandbox }) => sandbox !== id))

const MUTATIONS: Record<string, { fault: Fault; mutate: Mutation }> = {
  'an acknowledged sandbox is missing from the last list': {
    fault: 'lost',
    mutate: (history, pick) => {
      const id = choose(kept(history), pick)
      const census = censusOf(history)
      if (id === undefined || census === undefined) return undefined
      return replace(history, census, { ...census, sandboxes: census.sandboxes.filter((seen) => seen.id !== id) })
    },
  },
  'a second sandbox has the key of an acknowledged create': {
    fault: 'doubled',
    mutate: (history, pick) => {
      const id = choose(kept(history), pick)
      const census = censusOf(history)
      const seen = census?.sandboxes.find((each) => each.id === id)
      if (census === undefined || seen === undefined) return undefined
      return replace(history, census, { ...census, sandboxes: [...census.sandboxes, { ...seen, id: 'twin' }] })
    },
  },
  'a sandbox is there that no client asked for': {
    fault: 'orphan',
    mutate: (history) => {
      const census = censusOf(history)
      return (
        census &&
        replace(history, census, { ...census, sandboxes: [...census.sandboxes, { id: 'nobody', state: 'Running' }] })
      )
    },
  },
  'a deleted sandbox comes back': {
    fault: 'orphan',
    mutate: (history, pick) => {
      const gone = ofVerb(history, 'delete').filter(({ outcome }) => outcome.is === 'ok')
      const sandbox = choose(gone, pick)?.sandbox
      const time = endOf(history)
      return sandbox === undefined
        ? undefined
        : [...history, { op: 'renew', client: 0, begin: time + 1, end: time + 2, sandbox, outcome: { is: 'ok' } }]
    },
  },
  'a late read gives what an acknowledged write replaced': {
    fault: 'stale',
    mutate: (history, pick) => {
      const writes = ofVerb(history, 'write').filter(({ outcome }) => outcome.is === 'ok')
      const pairs = writes.flatMap((old) =>
        writes
          .filter(({ sandbox, file, begin }) => sandbox === old.sandbox && file === old.file && begin > old.end)
          .map(() => old),
      )
      const old = choose(pairs, pick)
      const time = endOf(history)
      if (old === undefined) return undefined
      const { sandbox, file, value } = old
      const late = { op: 'read' as const, client: 0, begin: time + 1, end: time + 2, sandbox, file }
      return [...history, { ...late, outcome: { is: 'ok', value } }]
    },
  },
  'a file holds parts of two values': {
    fault: 'mixed',
    mutate: (history, pick) => {
      const read = choose(
        ofVerb(history, 'read').filter(({ outcome }) => outcome.is === 'ok'),
        pick,
      )
      return read && replace(history, read, { ...read, outcome: { is: 'ok', value: 'value1\nvalue2' } })
    },
  },
  'a sandbox runs after its pause was acknowledged': {
    fault: 'state',
    mutate: (history, pick) => {
      const census = censusOf(history)
      const sleepers = ofVerb(history, 'create').flatMap(({ wakes, outcome }) =>
        wakes === false && outcome.is === 'ok' ? [outcome.sandbox] : [],
      )
      // An unknown resume may be what brought it back.
      const isSure = (id: string) =>
        sleepers.includes(id) &&
        ofVerb(history, 'resume').every(({ sandbox, outcome }) => sandbox !== id || outcome.is === 'refused')
      const sure = census?.sandboxes.filter(({ id, state }) => state === 'Paused' && isSure(id)) ?? []
      const paused = choose(
        sure.filter(({ id }) => ofVerb(history, 'pause').some((p) => p.sandbox === id && p.outcome.is === 'ok')),
        pick,
      )
      if (census === undefined || paused === undefined) return undefined
      const time = endOf(history)
      // Not a use, which might wake it.
      const late = { op: 'snapshot' as const, client: 0, begin: time + 1, end: time + 2, sandbox: paused.id }
      return [...history, { ...late, outcome: { is: 'ok', snapshot: 'late' } }]
    },
  },
  'a sandbox is paused by itself after a use of it': {
    fault: 'state',
    mutate: (history, pick) => {
      // What has a time may be paused by its end, and what was asked for may still come about.
      const isSure = (id: string) =>
        ofVerb(history, 'expire').every(({ sandbox }) => sandbox !== id) &&
        ofVerb(history, 'pause').every(({ sandbox, outcome }) => sandbox !== id || outcome.is !== 'unknown')
      const running = censusOf(history)?.sandboxes.filter(({ id, state }) => state === 'Running' && isSure(id)) ?? []
      const seen = choose(running, pick)
      if (seen === undefined) return undefined
      const time = endOf(history)
      const use = { op: 'count' as const, client: 0, begin: time + 1, end: time + 2, sandbox: seen.id }
      const list = { op: 'list' as const, client: 0, begin: time + 3, end: time + 4 }
      return [
        ...history,
        { ...use, outcome: { is: 'ok', process: 'counter', count: 1_000_000 } },
        { ...list, outcome: { is: 'ok', sandboxes: [{ ...seen, state: 'Paused' }] } },
      ]
    },
  },
  'a create that was sent again gives another sandbox': {
    fault: 'doubled',
    mutate: (history, pick) => {
      const create = choose(
        ofVerb(history, 'create').filter(({ outcome }) => outcome.is === 'ok'),
        pick,
      )
      const time = endOf(history)
      return (
        create && [...history, { ...create, begin: time + 1, end: time + 2, outcome: { is: 'ok', sandbox: 'another' } }]
      )
    },
  },
  'the last event of a sandbox tells another state': {
    fault: 'account',
    mutate: (history, pick) => {
      const census = censusOf(history)
      const id = choose(Object.keys(census?.events ?? {}), pick)
      if (census === undefined || id === undefined) return undefined
      return replace(history, census, { ...census, events: { ...census.events, [id]: 'pausing' } })
    },
  },
  'nothing tells what a sandbox that is gone has used': {
    fault: 'account',
    mutate: (history, pick) => {
      const census = censusOf(history)
      const made = ofVerb(history, 'create').flatMap(({ outcome }) => (outcome.is === 'ok' ? [outcome.sandbox] : []))
      const gone = ofVerb(history, 'delete').filter(({ sandbox, outcome }) => {
        return outcome.is === 'ok' && made.includes(sandbox)
      })
      const id = choose(gone, pick)?.sandbox
      if (census === undefined || id === undefined) return undefined
      return replace(history, census, { ...census, usage: census.usage?.filter(({ sandbox }) => sandbox !== id) })
    },
  },
  'what a sandbox has used is recorded twice': {
    fault: 'account',
    mutate: (history, pick) => {
      const census = censusOf(history)
      const twice = choose(census?.usage ?? [], pick)
      if (census?.usage === undefined || twice === undefined) return undefined
      return replace(history, census, { ...census, usage: [...census.usage, twice] })
    },
  },
  'a process goes back in time': {
    fault: 'process',
    mutate: (history, pick) => {
      const counts = ofVerb(history, 'count').flatMap((count) =>
        count.outcome.is === 'ok' && count.outcome.count > 0 ? [{ ...count, outcome: count.outcome }] : [],
      )
      const count = choose(counts, pick)
      const time = endOf(history)
      return (
        count && [
          ...history,
          { ...count, begin: time + 1, end: time + 2, outcome: { ...count.outcome, count: count.outcome.count - 1 } },
        ]
      )
    },
  },
  'another process stands where the first was': {
    fault: 'process',
    mutate: (history, pick) => {
      const counts = ofVerb(history, 'count').filter(({ outcome }) => outcome.is === 'ok')
      const count = counts.length < 2 ? undefined : choose(counts, pick)
      return count && replace(history, count, { ...count, outcome: { is: 'ok', process: 'other', count: 1_000_000 } })
    },
  },
  'a machine is left that no sandbox has': {
    fault: 'orphan',
    mutate: (history) => {
      const census = censusOf(history)
      if (census === undefined) return undefined
      const { cgroups = [] } = census.node.containers
      const node = { ...census.node, containers: { ...census.node.containers, cgroups: [...cgroups, 'left'] } }
      return replace(history, census, { ...census, node })
    },
  },
  'a running sandbox has no machine': {
    fault: 'lost',
    mutate: (history) => {
      const census = censusOf(history)
      if (census?.sandboxes.every(({ state }) => state !== 'Running') !== false) return undefined
      const containers = { machines: census.node.containers.machines?.slice(1) ?? [] }
      return replace(history, census, { ...census, node: { ...census.node, containers } })
    },
  },
  'a snapshot has lost its files': {
    fault: 'lost',
    mutate: (history) => {
      const census = censusOf(history)
      return census && replace(history, census, { ...census, node: { ...census.node, snapshots: [] } })
    },
  },
}

for (const [what, { fault, mutate }] of Object.entries(MUTATIONS))
  test(`it is found when ${what}`, () => {
    let found = 0
    fc.assert(
      fc.property(good, fc.nat(), (history, pick) => {
        const bad = mutate(history, pick)
        if (bad === undefined) return
        found += 1
        const faults = faultsOf(bad)
        assert.ok(faults.has(fault), `found ${[...faults].join(', ') || 'nothing'}`)
      }),
      { numRuns: 150 },
    )
    assert.ok(found > 20, `only ${found} histories had a place for it`)
  })

/** Histories that were written by hand: what is wrong with each is its name and its one finding. */
const SEEDS: Record<string, RegExp | undefined> = {
  'good.jsonl': undefined,
  'lost.jsonl': /^lost: box-2, made by 0\.400 s to \?, is not in the list/,
  'doubled.jsonl': /^doubled: the create key-1 asked for 1 and made 2: box-1, box-9$/,
  'stale-file.jsonl': /^stale: \/root\/a of box-1 still held "one" .* although "two" had replaced it/,
  'stale-after-fork.jsonl': /^stale: \/root\/a of box-1 still held "one" .* although "two" had replaced it/,
  'process-began-again.jsonl': /^process: the process in box-1 .* is 2-b and not 1-a/,
}

test('every seeded history is tried', async () => {
  assert.deepEqual((await readdir(SEEDED)).sort(), Object.keys(SEEDS).sort())
})

for (const [file, finding] of Object.entries(SEEDS))
  test(`the program ${finding === undefined ? 'accepts' : 'rejects'} ${file}`, async () => {
    const path = join(SEEDED, file)
    const lines = (await readFile(path, 'utf8')).trim().split('\n').length
    const checked = run(process.execPath, [join(import.meta.dirname, 'check.ts'), path])
    if (finding === undefined) {
      assert.equal((await checked).stdout, `${lines} operations, 0 findings\n`)
      return
    }
    const failure: unknown = await checked.then(
      () => undefined,
      (thrown: unknown) => thrown,
    )
    assert.ok(failure instanceof Error && 'code' in failure && 'stdout' in failure, `${file} was accepted`)
    assert.equal(failure.code, 1)
    const [first = '', summary] = String(failure.stdout).trim().split('\n')
    assert.match(first, finding)
    assert.equal(summary, `${lines} operations, 1 findings`)
  })

test('the program says so when a file is no history', async () => {
  const failure: unknown = await run(process.execPath, [
    join(import.meta.dirname, 'check.ts'),
    join(import.meta.dirname, 'check.ts'),
  ]).catch((thrown: unknown) => thrown)
  assert.ok(failure instanceof Error && 'code' in failure && 'stderr' in failure)
  assert.equal(failure.code, 2)
  assert.match(String(failure.stderr), /^line 1 is no operation of a history/)
})
