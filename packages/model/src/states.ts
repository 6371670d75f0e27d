/** The states of the resources, the transitions between them and the questions asked of a state, in one place. */

export const SANDBOX_STATES = ['creating', 'running', 'pausing', 'paused', 'resuming', 'deleting', 'failed'] as const
export type SandboxState = (typeof SANDBOX_STATES)[number]

export const ARTIFACT_STATES = ['creating', 'ready', 'deleting', 'failed'] as const
/** States of images, templates and snapshots. */
export type ArtifactState = (typeof ARTIFACT_STATES)[number]

/** From each state, the states that may follow. A state may always be written again unchanged. */
export const SANDBOX_TRANSITIONS: Record<SandboxState, readonly SandboxState[]> = {
  creating: ['running', 'failed', 'deleting'],
  // resuming: a rollback replaces the running machine by one restored from an earlier snapshot.
  running: ['pausing', 'resuming', 'failed', 'deleting'],
  // running: a pause that failed before its commit leaves the sandbox running.
  pausing: ['paused', 'running', 'failed', 'deleting'],
  paused: ['resuming', 'failed', 'deleting'],
  // paused: a resume that failed leaves the sandbox paused, with its snapshot; a failed rollback leaves it as it was.
  resuming: ['running', 'paused', 'failed', 'deleting'],
  failed: ['resuming', 'deleting'],
  deleting: [],
}

export const ARTIFACT_TRANSITIONS: Record<ArtifactState, readonly ArtifactState[]> = {
  creating: ['ready', 'failed', 'deleting'],
  ready: ['deleting', 'failed'],
  // ready: what was missing is there again.
  failed: ['creating', 'ready', 'deleting'],
  deleting: [],
}

export const canMove = <S extends string>(table: Record<S, readonly S[]>, from: S, to: S): boolean =>
  from === to || table[from].includes(to)

/** A machine answers execs and file calls. */
export const canExec = (state: SandboxState): boolean => state === 'running'
export const canPause = (state: SandboxState): boolean => state === 'running'
export const canResume = (state: SandboxState): boolean => state === 'paused'
/** A snapshot or fork can be taken: only of what runs. */
export const canSnapshot = (state: SandboxState): boolean => state === 'running'
export const canRollback = (state: SandboxState): boolean =>
  state === 'running' || state === 'paused' || state === 'failed'
/** On its way to running. */
export const isArriving = (state: SandboxState): boolean => state === 'creating' || state === 'resuming'
/** No lifecycle operation is under way. */
export const isSettled = (state: SandboxState): boolean =>
  state === 'running' || state === 'paused' || state === 'failed'
/** Its time is counted as running. */
export const isMetered = (state: SandboxState): boolean => state === 'running' || state === 'pausing'
/** It has a machine or is about to: it counts against the limit of its project. */
export const isLive = (state: SandboxState): boolean => isMetered(state) || isArriving(state)
/** A machine is supposed to exist on the node now, or may exist while an operation is under way. */
export const mayHaveMachine = (state: SandboxState): boolean => state !== 'paused' && state !== 'failed'
