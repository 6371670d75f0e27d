import { strictEqual } from 'node:assert/strict'
import { CrashPoint } from './crash-points.ts'
import { openParts } from './parts.ts'
import { isVerb, MARK, perform, VERBS } from './verbs.ts'

/**
 * A process that makes a sandbox with a mark in its memory, then does one verb with a crash point armed.
 * `node crashing.ts DATA VERB STEP`: prints the id of the sandbox when that was acknowledged, and `done` with the number of
 * steps when it lived to the end.
 */
const [directory = '', verb = '', step = ''] = process.argv.slice(2)
if (!isVerb(verb)) throw new Error(`the verbs are ${VERBS.join(', ')}`)

const crash = new CrashPoint(Number(step))
const parts = await openParts(directory, crash)
const signal = AbortSignal.timeout(60_000)
const accepted = await parts.project.sandboxes.create({ template: 'marked', env: {}, metadata: {} }, signal)
const { metadata } = await accepted.settled
const session = await parts.project.sandboxes.exec(
  metadata.name,
  { argv: ['sh', '-c', `echo ${MARK} > /dev/shm/mark; echo ${MARK} > /root/mark`] },
  signal,
)
for await (const event of session.events) if (event.type === 'exit') strictEqual(event.exit.exitCode, 0)
// The pause that is crashed in replaces another one.
if (verb === 'pause' || verb === 'pause without memory') {
  await (await parts.project.sandboxes.pause(metadata.name, {}, signal)).settled
  await (await parts.project.sandboxes.resume(metadata.name, signal)).settled
}
if (verb === 'resume') await (await parts.project.sandboxes.pause(metadata.name, {}, signal)).settled
if (verb === 'resume without memory')
  await (await parts.project.sandboxes.pause(metadata.name, { kind: 'filesystem' }, signal)).settled
if (verb === 'rollback')
  await (await parts.project.snapshots.create(metadata.name, { name: 'earlier', kind: 'memory', stop: false }, signal))
    .settled
process.stdout.write(`${metadata.name}\n`)
crash.arm()
await perform(parts.project, verb, metadata.name, signal)
process.stdout.write(`done ${crash.steps}\n`)
await parts.close()
process.exit(0)
