import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Project } from '@icebox/control'
import { isError, type Sandbox, type Snapshot } from '@icebox/model'
import { BASE_IMAGE } from '@icebox/node'
import { openParts, type Parts } from './parts.ts'
import { BUILT, FORKS, MARK, VERBS, type Verb } from './verbs.ts'

const ALL = { limit: 1000 }

/** More steps than any verb has: reaching it would mean that a verb never ends. */
const MOST_STEPS = 200
const CHILD_MS = 120_000
const SETTLE_MS = 30_000
/** A run that nothing stands on is gone by then. */
const ORPHAN_MS = 10_000

let directory = ''

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'icebox-killed-'))
  const parts = await openParts(directory)
  const signal = AbortSignal.timeout(300_000)
  const image = await parts.project.images.pull(BASE_IMAGE, () => undefined, signal)
  const build = await parts.project.templates.build(
    { name: 'marked', image: image.spec.digest, size: { memoryMiB: 256 }, env: {} },
    () => undefined,
    signal,
  )
  await build.settled
  await parts.close()
})

after(async () => {
  // Whatever a failed test left running goes with this.
  const parts = await openParts(directory)
  await deleteAll(parts)
  await parts.close()
  await rm(directory, { recursive: true, force: true })
  await rm(parts.data.run, { recursive: true, force: true })
})

/** Runs the verb in a process of its own that dies at the step. */
async function crash(
  verb: Verb,
  step: number,
): Promise<{ sandbox: string | undefined; completed: boolean; said: string }> {
  const child = spawn(process.execPath, [join(import.meta.dirname, 'crashing.ts'), directory, verb, String(step)], {
    stdio: ['ignore', 'pipe', 'pipe'],
    signal: AbortSignal.timeout(CHILD_MS),
    killSignal: 'SIGKILL',
  })
  let stdout = ''
  let stderr = ''
  child.stdout.on('data', (data) => {
    stdout += data
  })
  child.stderr.on('data', (data) => {
    stderr += data
  })
  const [code, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (exitCode, exitSignal) => resolve([exitCode, exitSignal]))
  })
  const [sandbox, done] = stdout.split('\n')
  const completed = done?.startsWith('done') === true && code === 0
  assert.ok(
    completed || signal === 'SIGKILL',
    `${verb} at step ${step} neither ended nor was killed (${code} ${signal}): ${stderr}`,
  )
  return { sandbox: sandbox === '' ? undefined : sandbox, completed, said: stderr.trim() }
}

/** Waits until no sandbox is on its way between states and no template is being built. */
async function settled(project: Project): Promise<Sandbox[]> {
  const deadline = AbortSignal.timeout(SETTLE_MS)
  for (;;) {
    const { items: sandboxes } = await project.sandboxes.list({}, ALL, deadline)
    const { items: templates } = await project.templates.list(ALL, deadline)
    const isSettled = ({ status }: Sandbox) => ['running', 'paused', 'failed'].includes(status.state)
    if (sandboxes.every(isSettled) && templates.every(({ status }) => status.state !== 'creating')) return sandboxes
    deadline.throwIfAborted()
    await sleep(20)
  }
}

async function output(project: Project, sandbox: string, argv: string[]): Promise<string> {
  const session = await project.sandboxes.exec(sandbox, { argv }, AbortSignal.timeout(20_000))
  const chunks: Uint8Array[] = []
  for await (const event of session.events) if (event.type === 'output') chunks.push(event.data)
  return Buffer.concat(chunks).toString().trim()
}

async function deleteAll({ project }: Parts): Promise<void> {
  const signal = AbortSignal.timeout(60_000)
  for (const sandbox of await settled(project))
    await (await project.sandboxes.delete(sandbox.metadata.name, signal)).settled
  for (const snapshot of (await project.snapshots.list({}, ALL, signal)).items) {
    await (await project.snapshots.delete(snapshot.metadata.name, signal)).settled
  }
  for (const { metadata } of (await project.templates.list(ALL, signal)).items)
    if (metadata.name === BUILT) await (await project.templates.delete(BUILT, signal)).settled
}

/** What must hold after every crash, whatever it interrupted. */
async function checkInvariants(parts: Parts, verb: Verb, subject: string | undefined): Promise<void> {
  const { project, node, data } = parts
  const sandboxes = await settled(project)
  for (const { metadata, status } of sandboxes) {
    assert.notEqual(status.state, 'failed', `${metadata.name} has failed: ${status.message}`)
  }
  const { items: templates } = await project.templates.list(ALL, AbortSignal.timeout(10_000))
  for (const { metadata, status } of templates)
    assert.equal(status.state, 'ready', `the template ${metadata.name} is ${status.state}: ${status.message}`)
  if (subject !== undefined && verb !== 'delete') {
    assert.ok(
      sandboxes.some(({ metadata }) => metadata.name === subject),
      `${subject}, which was acknowledged, is lost`,
    )
  }
  const most = verb === 'create' ? 2 : verb === 'fork' ? 1 + FORKS : 1
  assert.ok(sandboxes.length <= most, `${sandboxes.length} sandboxes where at most ${most} were asked for`)

  // Every machine belongs to a running sandbox and every running sandbox has one; a run that ends has a moment to do so.
  const running = sandboxes.filter(({ status }) => status.state === 'running')
  const wanted = running.map(({ status }) => String(status.execution)).sort()
  const there = () =>
    node
      .machines()
      .map(({ execution }) => String(execution))
      .sort()
  const deadline = performance.now() + ORPHAN_MS
  while (String(there()) !== String(wanted) && performance.now() < deadline) await sleep(20)
  assert.deepEqual(there(), wanted)
  assert.ok(node.machines().every(({ frozen }) => !frozen))

  // No temporary file is left, no snapshot that nobody knows, and no hidden one whose sandbox does not need it: a fork's goes
  // with the last of its children to settle.
  const snapshots = async () =>
    (await project.snapshots.list({ hidden: true, states: ['ready'] }, ALL, AbortSignal.timeout(10_000))).items
  const known = async () => (await snapshots()).map(({ metadata }) => metadata.name).sort()
  const held = new Set([
    ...sandboxes.map(({ status }) => status.pausedIn),
    ...templates.map(({ status }) => status.snapshot),
  ])
  const isForgotten = ({ spec, metadata }: Snapshot) => spec.purpose !== 'user' && !held.has(metadata.name)
  const unsettled = async () =>
    (await readdir(data.tmp)).length > 0 ||
    (await snapshots()).some(isForgotten) ||
    String((await readdir(data.snapshots)).sort()) !== String(await known())
  while ((await unsettled()) && performance.now() < deadline) await sleep(20)
  assert.deepEqual(await readdir(data.tmp), [])
  assert.deepEqual((await snapshots()).filter(isForgotten), [])
  assert.deepEqual((await readdir(data.snapshots)).sort(), await known())

  for (const { metadata, status } of sandboxes) {
    const name = metadata.name
    const signal = AbortSignal.timeout(60_000)
    if (status.state === 'paused') await (await project.sandboxes.resume(name, signal)).settled
    const isMarked = verb !== 'create' || name === subject
    const marks = await output(project, name, ['sh', '-c', 'cat /root/mark /dev/shm/mark 2>/dev/null'])
    // Of what was paused without its memory the disk is left; until that pause is durable it runs on as it was.
    const expected = !isMarked
      ? ['']
      : verb.endsWith('without memory')
        ? [MARK, `${MARK}\n${MARK}`]
        : [`${MARK}\n${MARK}`]
    assert.ok(expected.includes(marks), `memory and disk of ${name}: ${JSON.stringify(marks)}`)
  }
}

for (const verb of VERBS) {
  test(`a server killed at any step of ${verb} loses and doubles nothing`, async (context) => {
    for (let step = 1; ; step += 1) {
      assert.ok(step < MOST_STEPS)
      const { sandbox, completed, said } = await crash(verb, step)
      const parts = await openParts(directory)
      try {
        await checkInvariants(parts, verb, sandbox)
      } catch (error) {
        throw new Error(`after ${said || 'no crash'}: ${error instanceof Error ? error.message : error}`, {
          cause: error,
        })
      } finally {
        await deleteAll(parts)
        await parts.close()
      }
      if (!completed) continue
      assert.ok(step > 1, 'no step was crashed at')
      context.diagnostic(`${step - 1} steps`)
      return
    }
  })
}

test('a snapshot that was acknowledged is there afterwards', async () => {
  const { completed } = await crash('snapshot', MOST_STEPS)
  assert.ok(completed)
  const parts = await openParts(directory)
  try {
    const snapshot = await parts.project.snapshots.get('taken', AbortSignal.timeout(10_000))
    assert.equal(snapshot.status.state, 'ready')
    await deleteAll(parts)
    await assert.rejects(parts.project.snapshots.get('taken', AbortSignal.timeout(10_000)), (error) =>
      isError(error, 'NotFound'),
    )
  } finally {
    await parts.close()
  }
})
