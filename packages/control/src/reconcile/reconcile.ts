import { availableParallelism } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import {
  asExecutionId,
  asSnapshotId,
  DEFAULT_PROJECT,
  IceboxError,
  isError,
  isSettled,
  SANDBOX_STATES,
  type Sandbox,
  type SnapshotInfo,
} from '@icebox/model'
import type { SandboxSummary, SnapshotSummary } from '../cache/summary.ts'
import { HIDDEN_PURPOSES, isForgotten } from '../collect/forgotten.ts'
import { type Context, DEADLINES, within } from '../context.ts'
import type { Accepted } from '../control.ts'
import { keepImage } from '../images/ensure.ts'
import { MISSING } from '../missing.ts'
import { settledStatus } from '../records.ts'
import { beginAgain } from '../sandboxes/again.ts'
import { finishDelete } from '../sandboxes/delete.ts'
import { forkSettled, removeForkSnapshot } from '../sandboxes/fork.ts'
import { beginPause, commitPause } from '../sandboxes/pause.ts'
import { beginResume } from '../sandboxes/restore.ts'
import { endRun } from '../sandboxes/run.ts'
import { PAUSED_BY_SHUTDOWN } from '../sandboxes/time.ts'
import { finishSnapshotDelete } from '../snapshots/delete.ts'
import { dropSnapshot } from '../snapshots/remove.ts'
import { beginBuild } from '../templates/build.ts'
import { operationKey } from '../templates/resolve.ts'
import { finishTemplateDelete } from '../templates/service.ts'
import type { Unclaimed } from './claims.ts'
import { type Observed, planSandbox, type SandboxAction } from './plan.ts'
import { roundRobin } from './round-robin.ts'

/** How often what is not settled is looked at again, milliseconds. */
const INTERVAL_MS = 5_000
/** Saves that are under way at once when the server goes down: more take no less time, and the memory of all at once. */
const PAUSES_AT_ONCE = 2 * availableParallelism()
/** When the server goes down, no pause begins later than this, milliseconds. */
const PAUSES_BEGIN_MS = 600_000
/** Nor is one waited for that has not ended by then. */
const PAUSES_END_MS = 780_000

/** What is really there of one sandbox. */
async function observe({ node, ...context }: Context, { status: { operation } }: Sandbox): Promise<Observed> {
  const machines = new Map(node.machines().map(({ execution, frozen }) => [execution as string, { frozen }]))
  const written = operation?.verb === 'pause' ? operation.snapshot : undefined
  const found =
    written === undefined
      ? undefined
      : await node.findSnapshot(asSnapshotId(written), within({ node, ...context }, DEADLINES.call))
  return {
    machines,
    snapshots: new Set(written === undefined || found === undefined || found === 'damaged' ? [] : [written]),
    hostRestarted: node.hostRestarted,
    now: Date.now(),
  }
}

/**
 * Closes the gaps between what is written and what is there. At the start, before anything else: adopts what runs, finishes
 * or undoes what a crash interrupted, removes what nobody claims. Later: begins again what failed half-way. Operations
 * under way in this process are left alone.
 */
export class Reconciler {
  readonly #context: Context
  #timer: NodeJS.Timeout | undefined
  #started = false

  constructor(context: Context) {
    this.#context = context
    context.closing.addEventListener('abort', () => clearTimeout(this.#timer))
  }

  /**
   * Returns once every sandbox's fate is decided and the quick part is done; restores go on in the background. What was found that
   * nobody claims goes.
   */
  async start(found: Unclaimed): Promise<void> {
    const context = this.#context
    await this.#images()
    await this.#removeUnclaimed(found)
    const concerned = new Set([
      ...this.#candidates(),
      ...context.cache.all('Sandbox').where('pausedFor', PAUSED_BY_SHUTDOWN),
    ])
    await Promise.all([...concerned].map((summary) => this.#decide(summary, 'start')))
    this.#started = true
    await this.#artifacts(new Set(found.present))
    await context.node.settled(within(context, DEADLINES.call))
    this.#again()
  }

  #again(): void {
    if (this.#context.closing.aborted) return
    this.#timer = setTimeout(() => {
      this.#pass()
        .catch((error) => this.#context.log('error', 'reconcile.failed', { error: IceboxError.from(error).message }))
        .finally(() => this.#again())
    }, INTERVAL_MS)
    this.#timer.unref()
  }

  async #pass(): Promise<void> {
    // Anew for each: what was done about the one before may have taken long.
    const alive = new Set<string>(this.#context.node.machines().map(({ execution }) => execution))
    for (const summary of this.#candidates()) if (this.#isAmiss(summary, alive)) await this.#decide(summary, 'running')
  }

  /** Those that something may have to be done about: what is not settled, what runs, and what a machine is there of. */
  #candidates(): SandboxSummary[] {
    const { cache, node } = this.#context
    const sandboxes = cache.all('Sandbox')
    const found = new Set<SandboxSummary>()
    for (const state of SANDBOX_STATES)
      if (state === 'running' || !isSettled(state)) for (const each of sandboxes.where('state', state)) found.add(each)
    for (const { execution } of node.machines())
      for (const each of sandboxes.where('execution', execution)) found.add(each)
    return [...found]
  }

  /** Nobody is at work on it, and what is written is not what is there; `alive` are the runs that have a machine. */
  #isAmiss({ name, state, execution = '' }: SandboxSummary, alive: ReadonlySet<string>): boolean {
    if (this.#context.operations.isBusy(name)) return false
    return !isSettled(state) || alive.has(execution) !== (state === 'running')
  }

  async #decide({ name, namespace }: SandboxSummary, moment: 'start' | 'running'): Promise<void> {
    const sandbox = await this.#context.project(namespace).records.find('Sandbox', name)
    if (sandbox === undefined) return
    const observed = await observe(this.#context, sandbox)
    await this.#settle(sandbox, planSandbox(sandbox, observed, moment))
  }

  async #settle(sandbox: Sandbox, actions: SandboxAction[]): Promise<void> {
    for (const action of actions) {
      try {
        await this.#perform(sandbox, action)
      } catch (error) {
        this.#context.log('error', 'reconcile.action.failed', {
          sandbox: sandbox.metadata.name,
          action: action.type,
          error: IceboxError.from(error).message,
        })
      }
    }
  }

  async #perform(sandbox: Sandbox, action: SandboxAction): Promise<void> {
    const { name, namespace } = sandbox.metadata
    const context = this.#context.project(namespace)
    context.log('info', 'reconcile', { sandbox: name, state: sandbox.status.state, ...action })
    /** Holds the sandbox while the operation goes on in the background, like a caller of the API would. */
    const hold = async (verb: string, begin: (stopping: AbortSignal) => Promise<Accepted<Sandbox>>) => {
      const { settled } = await context.operations.exclusive(name, verb, begin)
      settled.catch(() => undefined)
    }
    switch (action.type) {
      case 'kill':
        await endRun(context, action.execution)
        return
      case 'thaw':
        await context.node.thaw(asExecutionId(action.execution), within(context, DEADLINES.call))
        return
      case 'commitPause':
        await commitPause(context, sandbox, action.snapshot)
        return
      case 'revertToRunning':
        await context.records.setStatus('Sandbox', name, ({ status }) => ({
          ...settledStatus(status),
          state: 'running',
        }))
        return
      case 'fail': {
        const { reason, message } = action
        const failed = ({ status }: Sandbox) => ({
          ...settledStatus(status),
          state: 'failed' as const,
          reason,
          message,
        })
        await context.records.setStatus('Sandbox', name, failed, this.#started ? undefined : context.node.lastSeen)
        return
      }
      case 'finishDelete':
        await hold('delete', async () => ({ resource: sandbox, settled: finishDelete(context, sandbox) }))
        return
      case 'resume':
        await hold('resume', () => beginResume(context, name))
        return
      case 'redo':
        await hold(action.verb, async (stopping) => {
          const { resource, settled } = await beginAgain(context, sandbox, stopping)
          return { resource, settled: settled.finally(() => this.#afterFork(sandbox)) }
        })
        return
      default:
        return action satisfies never
    }
  }

  /** The last of a fork's children to settle takes its snapshot with it. */
  async #afterFork({ metadata, spec: { source } }: Sandbox): Promise<void> {
    if (source.from !== 'fork') return
    await forkSettled(this.#context.project(metadata.namespace), source.snapshot)
  }

  async #removeUnclaimed({ machines, snapshots }: Unclaimed): Promise<void> {
    const context = this.#context
    for (const execution of machines) {
      context.log('warn', 'orphan.machine', { execution })
      await endRun(context, execution)
    }
    for (const { id: snapshot, createdAt, sizeBytes } of snapshots) {
      context.log('warn', 'orphan.snapshot', { snapshot, createdAt, sizeBytes })
      await context.node.removeSnapshot(snapshot, within(context, DEADLINES.call))
    }
  }

  async #images(): Promise<void> {
    const { cache, node, project } = this.#context
    const here = await node.listImages(within(this.#context, DEADLINES.call))
    for (const image of here) {
      const owners = [...cache.all('Image').where('digest', image.digest)].map(({ namespace }) => namespace)
      for (const owner of owners.length > 0 ? owners : [DEFAULT_PROJECT])
        await keepImage(project(owner), image).catch((error) =>
          this.#context.log('error', 'reconcile.image.failed', {
            digest: image.digest,
            error: IceboxError.from(error).message,
          }),
        )
    }
    const digests = new Set(here.map(({ digest }) => digest))
    for (const { digest, name, namespace } of [...cache.all('Image').where('state', 'ready')]) {
      if (digests.has(digest)) continue
      await project(namespace).records.setStatus('Image', name, ({ status }) => ({
        ...status,
        state: 'failed',
        reason: MISSING,
        message: 'its files are gone from the data directory; pull it again',
      }))
    }
  }

  /** Snapshots and templates that a crash interrupted; `present` are the snapshots whose bytes are here. */
  async #artifacts(present: ReadonlySet<string>): Promise<void> {
    const { cache, operations, project } = this.#context
    await this.#dropForgotten()
    const snapshots = cache.all('Snapshot')
    for (const { name, namespace } of [...snapshots.where('state', 'deleting')])
      await finishSnapshotDelete(project(namespace), await project(namespace).records.get('Snapshot', name))
    for (const snapshot of [...snapshots.where('state', 'creating')]) await this.#settleInterrupted(snapshot)
    for (const snapshot of [...snapshots.where('reason', MISSING)])
      if (present.has(snapshot.name)) await this.#settleFound(snapshot)
    for (const { name, namespace } of [...snapshots.where('state', 'ready')])
      if (!present.has(name))
        await project(namespace).records.setStatus('Snapshot', name, ({ status }) => ({
          ...status,
          state: 'failed',
          reason: MISSING,
          message: 'its files are gone from the data directory',
        }))
    for (const { name, namespace } of [...snapshots.where('purpose', 'fork')])
      await removeForkSnapshot(project(namespace), name)

    const templates = cache.all('Template')
    for (const { name, namespace } of [...templates.where('state', 'deleting')])
      await finishTemplateDelete(project(namespace), await project(namespace).records.get('Template', name))
    for (const { name, namespace } of [...templates.where('state', 'creating')]) {
      const context = project(namespace)
      const { spec } = await context.records.get('Template', name)
      const { settled } = await operations.exclusive(operationKey(context, name), 'build', (stopping) =>
        beginBuild(context, name, spec, () => undefined, stopping),
      )
      settled.catch(() => undefined)
    }
  }

  /** One that was being taken when the server ended. */
  async #settleInterrupted({ name, namespace }: SnapshotSummary): Promise<void> {
    const found = await this.#find(name)
    await this.#context
      .project(namespace)
      .records.setStatus('Snapshot', name, () =>
        found === undefined
          ? { state: 'failed', reason: 'Interrupted', message: 'the server ended before the snapshot was durable' }
          : { state: 'ready', sizeBytes: found.sizeBytes },
      )
  }

  /** One whose files are back. */
  async #settleFound({ name, namespace }: SnapshotSummary): Promise<void> {
    const found = await this.#find(name)
    if (found === undefined) return
    const { records } = this.#context.project(namespace)
    await records.setStatus('Snapshot', name, () => ({ state: 'ready', sizeBytes: found.sizeBytes }))
  }

  async #find(snapshot: string): Promise<SnapshotInfo | undefined> {
    const call = within(this.#context, DEADLINES.call)
    const found = await this.#context.node.findSnapshot(asSnapshotId(snapshot), call)
    return found === 'damaged' ? undefined : found
  }

  /** Removes the hidden snapshots that a crash parted from what they belong to. */
  async #dropForgotten(): Promise<void> {
    const { cache, log, project } = this.#context
    for (const purpose of HIDDEN_PURPOSES)
      for (const snapshot of [...cache.all('Snapshot').where('purpose', purpose)]) {
        if (!isForgotten(cache, snapshot)) continue
        const { name, namespace } = snapshot
        log('warn', 'orphan.snapshot', { snapshot: name, purpose })
        await dropSnapshot(project(namespace), name)
      }
  }

  /**
   * Pauses everything that runs, to be resumed at the next start: of each project one after the other, so that one whose
   * pauses take long holds up itself first. Failures, and what had not begun or ended in time, are left running.
   */
  async pauseAll(reason: typeof PAUSED_BY_SHUTDOWN): Promise<{ name: string; error: IceboxError }[]> {
    const failures: { name: string; error: IceboxError }[] = []
    const running = roundRobin(
      [...this.#context.cache.all('Sandbox').where('state', 'running')],
      ({ namespace }) => namespace,
    ).values()
    const until = performance.now() + PAUSES_BEGIN_MS
    const underWay = new Set<string>()
    const pauseRest = async () => {
      // All take from the same list.
      for (const { name, namespace } of running) {
        underWay.add(name)
        const context = this.#context.project(namespace)
        try {
          if (performance.now() > until)
            throw new IceboxError('DeadlineExceeded', `no pause begins after ${PAUSES_BEGIN_MS / 60_000} minutes`)
          await (
            await context.operations.exclusiveInTurn(name, 'pause', () =>
              beginPause(context, name, { kind: 'memory', reason }),
            )
          ).settled
        } catch (error) {
          if (!isError(error, 'NotFound', 'InvalidState')) failures.push({ name, error: IceboxError.from(error) })
        } finally {
          underWay.delete(name)
        }
      }
    }
    const all = Promise.all(Array.from({ length: PAUSES_AT_ONCE }, pauseRest))
    await Promise.race([all, sleep(PAUSES_END_MS, undefined, { ref: false, signal: this.#context.closing })])
    const late = `its pause has not ended within ${PAUSES_END_MS / 60_000} minutes`
    return [...failures, ...[...underWay].map((name) => ({ name, error: new IceboxError('DeadlineExceeded', late) }))]
  }
}
