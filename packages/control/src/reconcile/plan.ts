import type { Sandbox } from '@icebox/model'
import { revival } from '../sandboxes/revival.ts'
import { isPastEnd, PAUSED_BY_SHUTDOWN } from '../sandboxes/time.ts'

/** What is really there, as far as one sandbox is concerned. */
export interface Observed {
  /** Runs that exist on the node, and whether they are frozen. */
  machines: ReadonlyMap<string, { frozen: boolean }>
  /** Complete snapshots on the node. */
  snapshots: ReadonlySet<string>
  /** The host was started anew: what is missing went with it. */
  hostRestarted: boolean
  /** Milliseconds since the epoch. */
  now: number
}

export type SandboxAction =
  /** End a run that nothing stands on any more. */
  | { type: 'kill'; execution: string }
  /** A save was interrupted: let the run go on. */
  | { type: 'thaw'; execution: string }
  /** The snapshot is durable: write that the sandbox is paused in it. */
  | { type: 'commitPause'; snapshot: string }
  /** Write that the sandbox runs as it did before the operation. */
  | { type: 'revertToRunning' }
  /** Begin the interrupted operation again, under a new execution id. */
  | { type: 'redo'; verb: 'create' | 'resume' | 'rollback' }
  | { type: 'finishDelete' }
  /** The server paused it when it went down: bring it back. */
  | { type: 'resume' }
  | { type: 'fail'; reason: string; message: string }

/**
 * What to do about a sandbox for which no operation is under way in this process: pure, so that every combination can be
 * tried. Decides from the intent, whether its snapshot is complete, and the machines that exist.
 */
export function planSandbox(sandbox: Sandbox, observed: Observed, moment: 'start' | 'running'): SandboxAction[] {
  const { status } = sandbox
  const alive = (execution: string | undefined): execution is string =>
    execution !== undefined && observed.machines.has(execution)
  const kill = (execution: string | undefined): SandboxAction[] =>
    alive(execution) ? [{ type: 'kill', execution }] : []
  const thaw = (execution: string): SandboxAction[] =>
    observed.machines.get(execution)?.frozen === true ? [{ type: 'thaw', execution }] : []
  const operation = status.operation
  const missing = (): SandboxAction => {
    const revive = revival(sandbox)
    return observed.hostRestarted
      ? { type: 'fail', reason: 'HostRestarted', message: `the host was restarted while it ran${revive}` }
      : { type: 'fail', reason: 'Lost', message: `its machine is gone${revive}` }
  }

  switch (status.state) {
    case 'creating':
      // A guest that nobody saw acknowledge HELLO is never handed out.
      return [...kill(operation?.execution), { type: 'redo', verb: 'create' }]
    case 'running':
      if (alive(status.execution)) return thaw(status.execution)
      return [missing()]
    case 'pausing': {
      const snapshot = operation?.snapshot
      if (snapshot !== undefined && observed.snapshots.has(snapshot)) {
        return [{ type: 'commitPause', snapshot }, ...kill(status.execution)]
      }
      if (alive(status.execution)) return [...thaw(status.execution), { type: 'revertToRunning' }]
      return [missing()]
    }
    case 'paused':
      return [
        ...kill(status.execution),
        // One whose time was over meanwhile stays paused, or is deleted by the expiry.
        ...(moment === 'start' && status.reason === PAUSED_BY_SHUTDOWN && !isPastEnd(sandbox, observed.now)
          ? ([{ type: 'resume' }] as const)
          : []),
      ]
    case 'resuming':
      return [
        ...kill(operation?.execution),
        { type: 'redo', verb: operation?.verb === 'rollback' ? 'rollback' : 'resume' },
      ]
    case 'deleting':
      return [...kill(status.execution), ...kill(operation?.execution), { type: 'finishDelete' }]
    case 'failed':
      return [...kill(status.execution), ...kill(operation?.execution)]
    default:
      return status.state satisfies never
  }
}
