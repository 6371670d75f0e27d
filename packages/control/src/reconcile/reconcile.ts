import { availableParallelism } from 'node:os'
import {
  asExecutionId,
  DEFAULT_PROJECT,
  IceboxError,
  isError,
  isSettled,
  type Sandbox,
  type Snapshot,
  type SnapshotInfo,
} from '@icebox/model'
import { forgotten } from '../collect/forgotten.ts'
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
import type { PAUSED_BY_SHUTDOWN } from '../sandboxes/time.ts'
import { finishSnapshotDelete } from '../snapshots/delete.ts'
import { dropSnapshot } from '../snapshots/remove.ts'
import { beginBuild } from '../templates/build.ts'
import { operationKey } from '../templates/resolve.ts'
import { finishTemplateDelete } from '../templates/service.ts'
import type { Unclaimed } from './claims.ts'
import { type Observed, planSandbox, type SandboxAction } from './plan.ts'

/** How often what is not settled is looked at again, milliseconds. */
const INTERVAL_MS = 5_000
/** Saves that are under way at once when the server goes down: more take no less time, and the memory of all at once. */
const PAUSES_AT_ONCE = 2 * availableParallelism()

async function observe(context: Context): Promise<Observed> {
  const machines = new Map(context.node.machines().map(({ execution, frozen }) => [execution as string, { frozen }]))
  const { complete } = await context.node.listSnapshots(within(context, DEADLINES.call))
  return {
    machines,
    snapshots: new Set(complete.map(({ id }) => id as string)),
    hostRestarted: context.node.hostRestarted,
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
    const observed = await observe(context)
    const sandboxes = await context.records.listEverywhere('Sandbox')
    await this.#removeUnclaimed(found)
    await Promise.all(sandboxes.map((sandbox) => this.#settle(sandbox, planSandbox(sandbox, observed, 'start'))))
    this.#started = true
    await this.#artifacts()
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
    const all = await this.#context.records.listEverywhere('Sandbox')
    for (const { metadata } of all.filter((sandbox) => this.#isAmiss(sandbox))) {
      // Anew for each: what was done about the one before may have taken long.
      const observed = await observe(this.#context)
      const sandbox = await this.#context.project(metadata.namespace).records.find('Sandbox', metadata.name)
      if (sandbox !== undefined && this.#isAmiss(sandbox))
        await this.#settle(sandbox, planSandbox(sandbox, observed, 'running'))
    }
  }

  /** Nobody is at work on it, and what is written is not what is there. */
  #isAmiss({ metadata, status }: Sandbox): boolean {
    const { operations, node } = this.#context
    if (operations.isBusy(metadata.name)) return false
    if (!isSettled(status.state)) return true
    const alive = node.machines().some(({ execution }) => execution === status.execution)
    return alive !== (status.state === 'running')
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
    const { node, project, records } = this.#context
    const here = await node.listImages(within(this.#context, DEADLINES.call))
    const known = await records.listEverywhere('Image')
    for (const image of here) {
      const owners = known.filter(({ spec }) => spec.digest === image.digest).map(({ metadata }) => metadata.namespace)
      for (const owner of owners.length > 0 ? owners : [DEFAULT_PROJECT])
        await keepImage(project(owner), image).catch((error) =>
          this.#context.log('error', 'reconcile.image.failed', {
            digest: image.digest,
            error: IceboxError.from(error).message,
          }),
        )
    }
    const digests = new Set(here.map(({ digest }) => digest))
    for (const image of known) {
      if (digests.has(image.spec.digest) || image.status.state !== 'ready') continue
      await project(image.metadata.namespace).records.setStatus('Image', image.metadata.name, ({ status }) => ({
        ...status,
        state: 'failed',
        reason: MISSING,
        message: 'its files are gone from the data directory; pull it again',
      }))
    }
  }

  /** Snapshots and templates that a crash interrupted. */
  async #artifacts(): Promise<void> {
    const { node, operations, project, records: all } = this.#context
    const found = await node.listSnapshots(within(this.#context, DEADLINES.call))
    const complete = new Map(found.complete.map((info) => [info.id as string, info]))
    const damaged = new Set<string>(found.damaged)
    // Deletes that were interrupted go on meanwhile, and take snapshots with them.
    for (const snapshot of await this.#withoutForgotten(await all.listEverywhere('Snapshot')))
      await this.#snapshot(snapshot, complete.get(snapshot.metadata.name), damaged).catch((error) => {
        if (!isError(error, 'NotFound')) throw error
      })
    for (const template of await all.listEverywhere('Template')) {
      const { name, namespace } = template.metadata
      const context = project(namespace)
      if (template.status.state === 'deleting') await finishTemplateDelete(context, template)
      if (template.status.state === 'creating') {
        const { settled } = await operations.exclusive(operationKey(context, name), 'build', (stopping) =>
          beginBuild(context, name, template.spec, () => undefined, stopping),
        )
        settled.catch(() => undefined)
      }
    }
  }

  async #snapshot(snapshot: Snapshot, info: SnapshotInfo | undefined, damaged: ReadonlySet<string>): Promise<void> {
    const { name, namespace } = snapshot.metadata
    const context = this.#context.project(namespace)
    const { records } = context
    if (snapshot.status.state === 'creating') {
      await records.setStatus('Snapshot', name, () =>
        info === undefined
          ? { state: 'failed', reason: 'Interrupted', message: 'the server ended before the snapshot was durable' }
          : { state: 'ready', sizeBytes: info.sizeBytes },
      )
    } else if (snapshot.status.state === 'deleting') {
      await finishSnapshotDelete(context, snapshot)
    } else if (snapshot.status.reason === MISSING && info !== undefined) {
      await records.setStatus('Snapshot', name, () => ({ state: 'ready', sizeBytes: info.sizeBytes }))
    } else if (snapshot.status.state === 'ready' && info === undefined && !damaged.has(name)) {
      await records.setStatus('Snapshot', name, ({ status }) => ({
        ...status,
        state: 'failed',
        reason: MISSING,
        message: 'its files are gone from the data directory',
      }))
    }
    if (snapshot.spec.purpose === 'fork') await removeForkSnapshot(context, name)
  }

  /** Removes the hidden snapshots that a crash parted from what they belong to. Gives the others. */
  async #withoutForgotten(snapshots: Snapshot[]): Promise<Snapshot[]> {
    const { records } = this.#context
    const gone = forgotten(snapshots, {
      sandboxes: await records.listEverywhere('Sandbox'),
      templates: await records.listEverywhere('Template'),
    })
    for (const { metadata, spec } of gone) {
      this.#context.log('warn', 'orphan.snapshot', { snapshot: metadata.name, purpose: spec.purpose })
      await dropSnapshot(this.#context.project(metadata.namespace), metadata.name)
    }
    return snapshots.filter((snapshot) => !gone.includes(snapshot))
  }

  /** Pauses everything that runs, to be resumed at the next start. Failures leave it running. */
  async pauseAll(reason: typeof PAUSED_BY_SHUTDOWN): Promise<{ name: string; error: IceboxError }[]> {
    const failures: { name: string; error: IceboxError }[] = []
    const all = await this.#context.records.listEverywhere('Sandbox')
    const running = all.filter(({ status }) => status.state === 'running').values()
    const pauseRest = async () => {
      // All take from the same list.
      for (const { metadata } of running) {
        const context = this.#context.project(metadata.namespace)
        try {
          await (
            await context.operations.exclusiveInTurn(metadata.name, 'pause', () =>
              beginPause(context, metadata.name, { kind: 'memory', reason }),
            )
          ).settled
        } catch (error) {
          if (!isError(error, 'NotFound', 'InvalidState'))
            failures.push({ name: metadata.name, error: IceboxError.from(error) })
        }
      }
    }
    await Promise.all(Array.from({ length: PAUSES_AT_ONCE }, pauseRest))
    return failures
  }
}
