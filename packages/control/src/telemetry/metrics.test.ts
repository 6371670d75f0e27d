import assert from 'node:assert/strict'
import { test } from 'node:test'
import { newSandboxId } from '@icebox/model'
import { openTestStore, SPEC, statusOf } from '../testing.ts'
import { BoundedLabel, countByProject, OTHER } from './labels.ts'
import { Metrics } from './metrics.ts'

const valuesOf = (text: string, name: string, label: string): Set<string> =>
  new Set(
    text
      .split('\n')
      .filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name}_count{`))
      .map((line) => new RegExp(`${label}="([^"]*)"`).exec(line)?.[1] ?? ''),
  )

test('however many projects and phases there are, the series are bounded, and none is left out of the sum', async (t) => {
  const { cache, recordsOf } = await openTestStore(t)
  for (let n = 0; n < 130; n++)
    for (let count = 0; count < (n === 129 ? 5 : 1); count++)
      await recordsOf(`p${n}`).create('Sandbox', newSandboxId(), { spec: SPEC, status: statusOf('creating') })
  const metrics = new Metrics(cache, { counts: { Killed: 2 }, untold: [] })
  for (let n = 0; n < 500; n++) metrics.operation('create', 5, { [`phase${n}`]: 1, restore: 1 }, undefined)
  const text = await metrics.text()
  const projects = valuesOf(text, 'icebox_sandboxes', 'project')
  assert.equal(projects.size, 101)
  assert.ok(projects.has(OTHER) && projects.has('p129'))
  const counts = [...text.matchAll(/^icebox_sandboxes\{.*\} (\d+)$/gm)].map(([, count]) => Number(count))
  assert.equal(
    counts.reduce((sum, count) => sum + count, 0),
    134,
  )
  const phases = valuesOf(text, 'icebox_operation_phase_duration_seconds', 'phase')
  assert.ok(phases.size <= 65 && phases.has(OTHER) && phases.has('restore'))
  assert.match(text, /^icebox_server_deaths_total\{cause="Killed"\} 2$/m)
  assert.match(text, /^icebox_server_deaths_total\{cause="OutOfHeap"\} 0$/m)
})

test('values of a label beyond its bound are one; names that others choose are kept apart', () => {
  const label = new BoundedLabel(2)
  assert.deepEqual(
    ['a', '__proto__', 'b', 'a'].map((value) => label.of(value)),
    ['a', '__proto__', OTHER, 'a'],
  )
  const all = ['a', 'a', 'b', 'c'].map((project) => ({ project, state: 'running', count: 1 }))
  assert.deepEqual(countByProject(all, 1), [
    { project: 'a', state: 'running', count: 2 },
    { project: OTHER, state: 'running', count: 2 },
  ])
})
