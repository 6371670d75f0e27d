import assert from 'node:assert/strict'
import { test } from 'node:test'
import { SANDBOX_STATES, type Sandbox, type SandboxStatus } from '@icebox/model'
import fc from 'fast-check'
import { PAUSED_BY_SHUTDOWN } from '../sandboxes/time.ts'
import { sandboxOf } from '../testing.ts'
import { type Observed, planSandbox, type SandboxAction } from './plan.ts'

const RUNS = ['run1', 'run2', 'run3'] as const
const SNAPSHOTS = ['snap1', 'snap2'] as const
const run = fc.constantFrom(...RUNS)
const snapshot = fc.constantFrom(...SNAPSHOTS)

const status: fc.Arbitrary<SandboxStatus> = fc
  .record({
    state: fc.constantFrom(...SANDBOX_STATES),
    lastTransitionAt: fc.constant('2026-01-01T00:00:00.000Z'),
    reason: fc.option(fc.constantFrom(PAUSED_BY_SHUTDOWN, 'Other'), { nil: undefined }),
    execution: fc.option(run, { nil: undefined }),
    pausedIn: fc.option(snapshot, { nil: undefined }),
    operation: fc.option(
      fc
        .record({
          id: fc.constant('op'),
          verb: fc.constantFrom('create', 'pause', 'resume', 'rollback', 'delete'),
          startedAt: fc.constant('2026-01-01T00:00:00.000Z'),
          snapshot: fc.option(snapshot, { nil: undefined }),
          execution: fc.option(run, { nil: undefined }),
        })
        .map((operation) => JSON.parse(JSON.stringify(operation))),
      { nil: undefined },
    ),
  })
  .map((each) => JSON.parse(JSON.stringify(each)))

const observed: fc.Arbitrary<Observed> = fc
  .record({
    machines: fc.uniqueArray(fc.tuple(run, fc.record({ frozen: fc.boolean() })), { selector: ([id]) => id }),
    snapshots: fc.uniqueArray(snapshot),
    hostRestarted: fc.boolean(),
  })
  .map(({ machines, snapshots, hostRestarted }) => ({
    machines: new Map(machines),
    snapshots: new Set(snapshots),
    hostRestarted,
    now: Date.parse('2026-01-01T00:01:00.000Z'),
  }))

const planned = (each: SandboxStatus, time: Pick<Sandbox['spec'], 'expiresAt'> = {}): Sandbox =>
  sandboxOf(each, { spec: { source: { from: 'snapshot', snapshot: 'snap1' }, ...time } })

const kills = (actions: SandboxAction[]) =>
  actions.flatMap((action) => (action.type === 'kill' ? [action.execution] : []))

test('a plan never ends the run of a sandbox that is to go on running', () => {
  fc.assert(
    fc.property(status, observed, (each, there) => {
      const actions = planSandbox(planned(each), there, 'start')
      const goesOn = each.state === 'running' || actions.some(({ type }) => type === 'revertToRunning')
      if (goesOn && each.execution !== undefined) assert.ok(!kills(actions).includes(each.execution))
    }),
  )
})

test('a paused sandbox loses neither its snapshot nor keeps a run', () => {
  fc.assert(
    fc.property(status, observed, (each, there) => {
      fc.pre(each.state === 'paused')
      const actions = planSandbox(planned(each), there, 'start')
      assert.ok(actions.every(({ type }) => type === 'kill' || type === 'resume'))
      if (each.execution !== undefined && there.machines.has(each.execution))
        assert.ok(kills(actions).includes(each.execution))
      assert.equal(
        actions.some(({ type }) => type === 'resume'),
        each.reason === PAUSED_BY_SHUTDOWN,
      )
      assert.ok(!planSandbox(planned(each), there, 'running').some(({ type }) => type === 'resume'))
    }),
  )
})

test('what the server paused at its end comes back exactly when its time is not over', () => {
  const status = {
    state: 'paused',
    reason: PAUSED_BY_SHUTDOWN,
    pausedIn: 'snap1',
    usage: { runningSeconds: 0 },
  } as const
  const each = { ...status, lastTransitionAt: '2026-01-01T00:00:00.000Z' }
  const now = Date.parse('2026-01-01T00:01:00.000Z')
  const there = { machines: new Map(), snapshots: new Set(['snap1']), hostRestarted: false, now }
  const plan = (expiresAt: string) => planSandbox(planned(each, { expiresAt }), there, 'start')
  assert.deepEqual(plan('2026-01-01T00:01:00.001Z'), [{ type: 'resume' }])
  assert.deepEqual(plan('2026-01-01T00:01:00.000Z'), [])
})

test('a pause is committed exactly when its snapshot is complete, and is never committed and undone', () => {
  fc.assert(
    fc.property(status, observed, (each, there) => {
      fc.pre(each.state === 'pausing')
      const actions = planSandbox(planned(each), there, 'start')
      const complete = each.operation?.snapshot !== undefined && there.snapshots.has(each.operation.snapshot)
      assert.equal(
        actions.some(({ type }) => type === 'commitPause'),
        complete,
      )
      const fates = actions.filter(({ type }) => ['commitPause', 'revertToRunning', 'fail'].includes(type))
      assert.equal(fates.length, 1)
      // Durable before released: the commit stands before the kill.
      if (complete) assert.equal(actions[0]?.type, 'commitPause')
    }),
  )
})

test('every state that is not settled gets a way to a settled one, and a frozen run that stays is thawed', () => {
  fc.assert(
    fc.property(status, observed, (each, there) => {
      const actions = planSandbox(planned(each), there, 'running')
      const types = actions.map(({ type }) => type)
      switch (each.state) {
        case 'creating':
        case 'resuming':
          assert.ok(types.includes('redo'))
          break
        case 'deleting':
          assert.ok(types.includes('finishDelete'))
          break
        case 'running': {
          const machine = each.execution === undefined ? undefined : there.machines.get(each.execution)
          assert.deepEqual(types, machine === undefined ? ['fail'] : machine.frozen ? ['thaw'] : [])
          break
        }
        case 'pausing':
        case 'paused':
        case 'failed':
          break
        default:
          each.state satisfies never
      }
      // Nothing is done to a run that is not there.
      for (const execution of kills(actions)) assert.ok(there.machines.has(execution))
    }),
  )
})
