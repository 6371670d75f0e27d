import { setTimeout as sleep } from 'node:timers/promises'
import {
  asExecutionId,
  type ExecExit,
  type ExecSession,
  type ExecutionId,
  IceboxError,
  type Image,
  newExecutionId,
  newSnapshotId,
  type Progress,
  type Template,
  type TemplateSpec,
} from '@icebox/model'
import { type Context, DEADLINES, within } from '../context.ts'
import type { Accepted } from '../control.ts'
import { ensureImage } from '../images/ensure.ts'
import { endRun } from '../sandboxes/run.ts'
import { saveHidden } from '../snapshots/save.ts'
import type { Noted } from '../telemetry/telemetry.ts'

/** Tag of the exec that runs a template's start command; it goes on in every sandbox made from it. */
export const START_TAG = 'start'
/** Bytes of a failed command's output that the error shows. */
const SHOWN_OUTPUT = 4096
const now = () => new Date().toISOString()

/** Writes the intent to build a template (or to build a failed or interrupted one again) and begins. */
export async function beginBuild(
  context: Context,
  name: string,
  spec: TemplateSpec,
  progress: Progress,
  stopping: AbortSignal,
): Promise<Accepted<Template>> {
  const buildExecution = newExecutionId()
  const present = await context.records.find('Template', name)
  if (present !== undefined && present.status.state !== 'failed' && present.status.state !== 'creating') {
    throw new IceboxError('AlreadyExists', `a template named ${name} exists already`, {
      remedy: `Delete it first (\`icebox template delete ${name}\`), or choose another name.`,
    })
  }
  const status = { state: 'creating' as const, buildExecution }
  let resource: Template
  if (present === undefined) {
    resource = await context.records.create('Template', name, { spec, status: { ...status, lastTransitionAt: now() } })
  } else {
    if (present.status.buildExecution !== undefined) await endRun(context, present.status.buildExecution)
    await context.records.setSpec('Template', name, () => spec)
    resource = await context.records.setStatus('Template', name, () => status)
  }
  return { resource, settled: finishBuild(context, resource, buildExecution, progress, stopping) }
}

function finishBuild(
  context: Context,
  template: Template,
  execution: ExecutionId,
  progress: Progress,
  stopping: AbortSignal,
): Promise<Template> {
  const of = { project: template.metadata.namespace, template: template.metadata.name }
  return context.telemetry.operation('build', of, (note) =>
    build(context, template, execution, progress, stopping, note),
  )
}

async function build(
  context: Context,
  template: Template,
  execution: ExecutionId,
  progress: Progress,
  stopping: AbortSignal,
  note: (facts: Noted) => void,
): Promise<Template> {
  const { name } = template.metadata
  const ended = new AbortController()
  const given = AbortSignal.any([stopping, context.stopping, ended.signal])
  const until = (milliseconds: number) => AbortSignal.any([given, within(context, milliseconds)])
  try {
    using _ = context.growth.build(execution, (why) => ended.abort(why))
    const { image: reference, byInstallation } = template.spec
    const image = await ensureImage(context, reference, byInstallation, progress, until(DEADLINES.pull))
    const env = { ...image.status.config.env, ...template.spec.env }
    const started = performance.now()
    progress({ phase: 'boot' })
    await context.node.boot(
      execution,
      { imageDigest: image.spec.digest, size: template.spec.size },
      // A build has no identity of its own: every sandbox made from it gets one at its restore.
      {
        sandbox: name,
        hostname: 'icebox',
        machineId: '0'.repeat(32),
        env,
        defaults: { user: image.status.config.user, workingDir: image.status.config.workingDir },
      },
      until(DEADLINES.boot),
    )
    try {
      await startAndWait(context, execution, template.spec, progress, given)
      const bootMs = performance.now() - started
      progress({ phase: 'snapshot' })
      const snapshot = await saveTemplate(context, template, execution, image, env, note)
      const ready = await context.records.setStatus('Template', name, () => ({
        state: 'ready',
        imageName: image.metadata.name,
        snapshot,
        bootMs,
      }))
      note({ bootMs })
      return ready
    } finally {
      await endRun(context, execution)
    }
  } catch (error) {
    const failure = IceboxError.from(given.aborted ? given.reason : error)
    if (!context.stopping.aborted) {
      await context.records.setStatus('Template', name, () => ({
        state: 'failed',
        reason: 'BuildFailed',
        message: failure.message,
      }))
    }
    throw failure
  }
}

async function saveTemplate(
  context: Context,
  template: Template,
  execution: ExecutionId,
  image: Image,
  env: Record<string, string>,
  note: (facts: Noted) => void,
): Promise<string> {
  const id = newSnapshotId()
  const spec = {
    kind: 'memory' as const,
    sandbox: '',
    execution,
    template: template.metadata.name,
    imageName: image.metadata.name,
    size: template.spec.size,
    env,
    purpose: 'template' as const,
  }
  await saveHidden(context, execution, id, spec, note)
  return id
}

/** Runs the start command and waits until the ready command says that it is ready. */
export async function startAndWait(
  context: Context,
  execution: ExecutionId,
  spec: TemplateSpec,
  progress: Progress,
  given: AbortSignal,
): Promise<void> {
  await startCommand(context, execution, spec, progress, AbortSignal.any([given, within(context, DEADLINES.call)]))
  await untilReady(context, execution, spec, progress, given)
}

async function startCommand(
  context: Context,
  execution: ExecutionId,
  spec: TemplateSpec,
  progress: Progress,
  signal: AbortSignal,
): Promise<void> {
  if (spec.startCommand === undefined) return
  progress({ phase: 'start' })
  const guest = context.node.guest(asExecutionId(execution))
  const session = await guest.exec({ argv: spec.startCommand, tag: START_TAG }, signal)
  session.detach()
}

/** Runs the ready command until it exits 0. A start command that has failed by then ends the build. */
async function untilReady(
  context: Context,
  execution: ExecutionId,
  spec: TemplateSpec,
  progress: Progress,
  given: AbortSignal,
): Promise<void> {
  if (spec.readyCommand === undefined) return
  progress({ phase: 'ready' })
  const guest = context.node.guest(asExecutionId(execution))
  const late = AbortSignal.timeout(DEADLINES.ready)
  const signal = AbortSignal.any([given, late, context.closing])
  let last = 'it has not ended once'
  try {
    for (let pause = 50; ; pause = Math.min(pause * 2, 1000)) {
      const attempt = await outcome(await guest.exec({ argv: spec.readyCommand, timeoutMs: 60_000 }, signal), signal)
      if (attempt.exit?.exitCode === 0) return
      if (attempt.exit !== undefined) last = shown(attempt)
      const start = (await guest.listExecs(signal)).find((exec) => exec.tag === START_TAG)
      if (start?.exit !== undefined && start.exit.exitCode !== 0) {
        const ended = await outcome(await guest.attach(start.id, {}, signal), signal)
        throw new IceboxError(
          'InvalidArgument',
          `the start command failed before the template was ready: ${shown(ended)}`,
        )
      }
      await sleep(pause, undefined, { signal })
    }
  } catch (error) {
    if (!late.aborted) throw error
    throw new IceboxError(
      'DeadlineExceeded',
      `the ready command did not succeed within ${DEADLINES.ready / 1000} s; the last time: ${last}`,
      { remedy: 'Run it in a sandbox of the image to see why; it has to end with 0 once the template is ready.' },
    )
  }
}

interface Outcome {
  /** Absent when the signal fired first. */
  exit?: ExecExit
  /** The last of it. */
  output: string
}

const shown = ({ exit, output }: Outcome): string =>
  [exit?.exitCode === undefined ? `ended by ${exit?.signal}` : `exit status ${exit.exitCode}`, output.trim()]
    .filter(Boolean)
    .join(', ')

async function outcome(session: ExecSession, signal: AbortSignal): Promise<Outcome> {
  const detach = () => session.detach()
  signal.addEventListener('abort', detach, { once: true })
  try {
    let output = ''
    const decoder = new TextDecoder()
    for await (const event of session.events) {
      if (event.type === 'output') output = (output + decoder.decode(event.data, { stream: true })).slice(-SHOWN_OUTPUT)
      if (event.type === 'exit') return { exit: event.exit, output }
    }
    signal.throwIfAborted()
    return { output }
  } finally {
    signal.removeEventListener('abort', detach)
    detach()
  }
}
