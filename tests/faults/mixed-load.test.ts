import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { BASE_IMAGE } from '@icebox/node'
import { Icebox } from '@icebox/sdk'
import { ServerProcess } from '../server-process.ts'
import { formatHistory, type History } from './history/record.ts'
import { takeCensus } from './load/census.ts'
import { runClient } from './load/clients.ts'
import { COUNTER, COUNTING } from './load/counter.ts'
import { FILES, Fleet } from './load/fleet.ts'
import { Random } from './load/random.ts'
import { Recorder } from './load/recorder.ts'

/** How long the load goes on at least; five minutes are 300. */
const SECONDS = Number(process.env.ICEBOX_FAULT_SECONDS ?? 60)
/** How much longer a slow machine is given to do enough. */
const LONGER_SECONDS = 150
/** What has to be done: a run in which little happened shows little. */
const ENOUGH = { kills: 3 + SECONDS / 20, acknowledged: 150 + SECONDS, ofEachVerb: 3 + SECONDS / 60 }
const VERBS = [
  'create',
  'fork',
  'snapshot',
  'pause',
  'expire',
  'resume',
  'write',
  'read',
  'count',
  'delete',
  'list',
] as const
/** The same seed makes the same choices; what comes of them depends on the machine. */
const SEED = Number(process.env.ICEBOX_FAULT_SEED ?? Math.floor(Math.random() * 2 ** 31))
/** The history is left in this file. */
const KEEP = process.env.ICEBOX_FAULT_HISTORY
const SANDBOXES = 20
const CLIENTS = 8
/** Between two kills the server lives so long after it has answered, milliseconds; at most as long as it took to start, if that is more. */
const LIFE_MS = { least: 300, most: 5000 }
const LOOK_MS = 200
const SETTLE_MS = 60_000
const CHECK = join(import.meta.dirname, 'history', 'check.ts')

/** Ends the server again and again, each time at once and in the middle of whatever it does. */
async function killAgainAndAgain(server: ServerProcess, recorder: Recorder, random: Random, signal: AbortSignal) {
  let started = 0
  for (;;) {
    const life = random.between(LIFE_MS.least, Math.max(LIFE_MS.most, started))
    await sleep(life, undefined, { signal }).catch(() => undefined)
    if (signal.aborted) return
    const begin = recorder.now()
    await server.kill()
    await server.restart()
    recorder.note({ op: 'kill', client: 0, begin, end: recorder.now() })
    started = recorder.now() - begin
  }
}

/** Wakes every sandbox, reads all its files and sees that its process counts on. */
async function readEverything(fleet: Fleet): Promise<void> {
  await fleet.list(0)
  for (const sandbox of fleet.sandboxes('Paused')) await fleet.resume(0, sandbox)
  for (const sandbox of fleet.sandboxes('Running')) {
    for (const file of FILES) await fleet.read(0, sandbox, file)
    const first = await fleet.count(0, sandbox)
    const until = performance.now() + SETTLE_MS
    for (let count = first; count === first; count = await fleet.count(0, sandbox))
      if (performance.now() > until) throw new Error(`the process in ${sandbox} counts no more`)
  }
}

async function deleteEverything(fleet: Fleet): Promise<void> {
  await fleet.list(0)
  for (const sandbox of [...fleet.believed.keys()]) await fleet.delete(0, sandbox)
  for (const { id } of await fleet.icebox.snapshots.list({ state: ['Ready'] })) await fleet.drop(0, id)
  // Those that a kill cut off are there with their reason until they are collected.
  await fleet.icebox.collect()
  assert.deepEqual(await fleet.icebox.snapshots.list(), [])
}

/** What was done, so that a run in which little happened is seen. */
function tally(history: History) {
  const counts: Record<string, { ok: number; refused: number; unknown: number }> = {}
  for (const operation of history) {
    if (!('outcome' in operation)) continue
    counts[operation.op] ??= { ok: 0, refused: 0, unknown: 0 }
    const count = counts[operation.op]
    if (count !== undefined) count[operation.outcome.is] += 1
  }
  const total = (outcome: 'ok' | 'refused' | 'unknown') =>
    Object.values(counts).reduce((sum, count) => sum + count[outcome], 0)
  const kills = history.filter(({ op }) => op === 'kill').length
  return { counts, kills, ok: total('ok'), refused: total('refused'), unknown: total('unknown') }
}

/** What there was too little of. */
function missing(history: History): string | undefined {
  const { counts, kills, ok, unknown } = tally(history)
  if (kills < ENOUGH.kills) return `only ${kills} kills`
  if (ok < ENOUGH.acknowledged) return `only ${ok} operations were acknowledged`
  if (unknown < kills) return `only ${unknown} operations were interrupted`
  const rare = VERBS.find((verb) => (counts[verb]?.ok ?? 0) < ENOUGH.ofEachVerb)
  return rare && `only ${counts[rare]?.ok ?? 0} times ${rare}`
}

async function check(history: History): Promise<{ status: number; said: string }> {
  const directory = await mkdtemp(join(tmpdir(), 'icebox-history-'))
  try {
    const file = join(directory, 'history.jsonl')
    await writeFile(file, formatHistory(history))
    return await new Promise((resolve) =>
      execFile(process.execPath, [CHECK, file], { maxBuffer: 2 ** 24 }, (error, stdout, stderr) =>
        resolve({ status: error === null ? 0 : Number(error.code), said: stdout + stderr }),
      ),
    )
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

test(`a server killed at random moments for ${SECONDS} s under a mixed load loses, doubles and leaves nothing`, async (context) => {
  context.diagnostic(`ICEBOX_FAULT_SEED=${SEED}`)
  const random = new Random(SEED)
  const recorder = new Recorder()
  try {
    await using server = await ServerProcess.start('mixed-load', { keepAddress: true })
    const image = await server.icebox.images.pull(BASE_IMAGE)
    const size = { memoryMiB: 96, diskMiB: 128 }
    const template = { name: 'counting', image: image.digest, size, startCommand: COUNTER, readyCommand: COUNTING }
    await server.icebox.templates.build(template)
    const apiKey = (await readFile(join(server.dataDirectory, 'key'), 'utf8')).trim()
    const fleet = new Fleet(new Icebox({ url: server.icebox.url, apiKey }), apiKey, template.name, recorder)

    const over = new AbortController()
    const until = over.signal
    const clients = Array.from({ length: CLIENTS }, (_, index) =>
      runClient(fleet, index + 1, new Random(random.between(0, 2 ** 31)), SANDBOXES, until),
    )
    const work = [...clients, killAgainAndAgain(server, recorder, new Random(random.between(0, 2 ** 31)), until)]
    // The first to fail ends the others, and is what the test fails with.
    const ended = Promise.allSettled(work.map((each) => each.finally(() => over.abort())))
    const began = performance.now()
    const elapsed = () => (performance.now() - began) / 1000
    const isOver = () =>
      elapsed() > SECONDS && (missing(recorder.history) === undefined || elapsed() > SECONDS + LONGER_SECONDS)
    while (!over.signal.aborted && !isOver()) await sleep(LOOK_MS)
    over.abort()
    const failure = (await ended).find((each) => each.status === 'rejected')
    context.diagnostic(`${elapsed().toFixed(0)} s of load`)
    const census = () => takeCensus(fleet.icebox, server.dataDirectory, () => recorder.now(), SETTLE_MS)
    if (failure !== undefined) throw failure.reason
    // A time that is about to end would do so in the middle of what follows.
    await fleet.list(0)
    for (const sandbox of fleet.sandboxes('Running')) await fleet.renew(0, sandbox)
    recorder.note(await census())
    await readEverything(fleet)
    recorder.note(await census())
    const peak = fleet.believed.size
    await deleteEverything(fleet)
    const last = await census()
    recorder.note(last)

    const done = tally(recorder.history)
    for (const [verb, counts] of Object.entries(done.counts))
      context.diagnostic(`${verb}: ${counts.ok} ok, ${counts.refused} refused, ${counts.unknown} unknown`)
    context.diagnostic(`${done.kills} kills; ${peak} sandboxes at the end`)
    const { status, said } = await check(recorder.history)
    assert.equal(status, 0, said)
    assert.deepEqual(last.sandboxes, [])
    assert.deepEqual(
      last.snapshots.filter(({ hidden }) => !hidden),
      [],
    )
    assert.equal(missing(recorder.history), undefined)
  } catch (error) {
    const { said } = await check(recorder.history)
    throw new Error(
      `with ICEBOX_FAULT_SEED=${SEED}: ${error instanceof Error ? error.message : error}; the checker says: ${said}`,
      {
        cause: error,
      },
    )
  } finally {
    if (KEEP !== undefined) await writeFile(KEEP, formatHistory(recorder.history))
  }
})
