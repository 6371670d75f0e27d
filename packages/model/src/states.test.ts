import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
  ARTIFACT_STATES,
  ARTIFACT_TRANSITIONS,
  canExec,
  canMove,
  canPause,
  canResume,
  canRollback,
  canSnapshot,
  isSettled,
  mayHaveMachine,
  SANDBOX_STATES,
  SANDBOX_TRANSITIONS,
} from './states.ts'

/** Every state that can follow, in any number of steps. */
function reachable<S extends string>(table: Record<S, readonly S[]>, from: S): Set<S> {
  const found = new Set<S>([from])
  for (const state of found) for (const next of table[state]) found.add(next)
  return found
}

test('every state can be reached, none is left once deleting, and all others can be deleted', () => {
  assert.deepEqual(reachable(SANDBOX_TRANSITIONS, 'creating'), new Set(SANDBOX_STATES))
  assert.deepEqual(reachable(ARTIFACT_TRANSITIONS, 'creating'), new Set(ARTIFACT_STATES))
  assert.deepEqual(SANDBOX_TRANSITIONS.deleting, [])
  assert.deepEqual(ARTIFACT_TRANSITIONS.deleting, [])
  for (const state of SANDBOX_STATES) assert.ok(canMove(SANDBOX_TRANSITIONS, state, 'deleting'))
  for (const state of ARTIFACT_STATES) assert.ok(canMove(ARTIFACT_TRANSITIONS, state, 'deleting'))
})

test('a state may be written again, and moves are those of the table', () => {
  for (const from of SANDBOX_STATES)
    for (const to of SANDBOX_STATES)
      assert.equal(
        canMove(SANDBOX_TRANSITIONS, from, to),
        from === to || SANDBOX_TRANSITIONS[from].includes(to),
        `${from} -> ${to}`,
      )
  assert.equal(canMove(SANDBOX_TRANSITIONS, 'paused', 'running'), false)
  assert.equal(canMove(SANDBOX_TRANSITIONS, 'deleting', 'running'), false)
  assert.equal(canMove(ARTIFACT_TRANSITIONS, 'ready', 'creating'), false)
})

test('what may be asked for in a state is a move of the table', () => {
  for (const state of SANDBOX_STATES) {
    if (canPause(state)) assert.ok(SANDBOX_TRANSITIONS[state].includes('pausing'), state)
    if (canResume(state)) assert.ok(SANDBOX_TRANSITIONS[state].includes('resuming'), state)
    if (canRollback(state)) assert.ok(SANDBOX_TRANSITIONS[state].includes('resuming'), state)
    // Only what has a machine can run anything or be saved.
    if (canExec(state) || canSnapshot(state) || canPause(state)) assert.ok(mayHaveMachine(state), state)
    // Under way: it can fail, and it can come to rest.
    if (!isSettled(state) && state !== 'deleting') {
      assert.ok(SANDBOX_TRANSITIONS[state].includes('failed'), state)
      assert.ok(SANDBOX_TRANSITIONS[state].some(isSettled), state)
    }
  }
})

test('an operation that fails before its commit can go back to where it began', () => {
  assert.ok(canMove(SANDBOX_TRANSITIONS, 'pausing', 'running'))
  assert.ok(canMove(SANDBOX_TRANSITIONS, 'resuming', 'paused'))
  assert.ok(canMove(SANDBOX_TRANSITIONS, 'resuming', 'running'))
})
