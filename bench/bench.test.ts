import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { SMOKE } from './effort.ts'
import { Lab } from './lab.ts'
import { SCENARIOS } from './scenarios/index.ts'

/** How many rows each scenario has, and what is measured in them. */
const ROWS: Record<string, number> = {
  create: 4,
  'burst-50': 1,
  cold: 1,
  exec: 2,
  'fork-20': 1,
  pause: SMOKE.resident.length,
  resume: SMOKE.resident.length,
  density: 1,
  image: 1,
  e2b: 2,
  gateway: 2,
  scale: 9,
  start: SMOKE.starts.length,
  idle: 1,
  fair: 1,
}

let lab: Lab
before(async () => {
  lab = await Lab.open(new AbortController().signal)
})
after(() => lab.close())

for (const scenario of SCENARIOS)
  test(`${scenario.name}: ours and the floor are both measured`, async (t) => {
    const results = await scenario.run(lab, SMOKE, t.signal)
    assert.equal(results.length, ROWS[scenario.name])
    for (const { name, ours, floor, ratio } of results)
      for (const value of [ours.p50, ours.p95, ours.n, floor.p50, floor.p95, floor.n, ratio])
        assert.ok(Number.isFinite(value) && value > 0, `${name}: ${JSON.stringify({ ours, floor, ratio })}`)
  })

test('nothing that was measured is left', async () => {
  const stage = await lab.stage()
  assert.deepEqual(stage.executions(), [])
  assert.deepEqual(await stage.icebox.sandboxes.list(), [])
  assert.deepEqual(await readdir(stage.floor.bundles), [])
  assert.deepEqual(await readdir(stage.floor.run), ['r'])
  assert.deepEqual(await stage.floor.cgroups.list(), [])
})

test('a scenario that does not exist is refused, with the one that was meant', async () => {
  const { promise, resolve } = Promise.withResolvers<{ code: unknown; stderr: string }>()
  execFile(process.execPath, [join(import.meta.dirname, 'main.ts'), 'dencity'], (error, _, stderr) =>
    resolve({ code: error?.code, stderr }),
  )
  const { code, stderr } = await promise
  assert.equal(code, 2)
  assert.match(stderr, /there is no scenario dencity; did you mean density\?/)
})
