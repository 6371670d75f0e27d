import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtemp, rm, statfs } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { type IceboxError, isError } from '@icebox/model'
import { BASE_IMAGE } from '@icebox/node'
import { openParts, type Parts } from './parts.ts'

const ALL = { limit: 1000 }

/** A data directory on a small ext4 of its own, so that it can be filled. */
const DISK_MIB = 1536

let scratch = ''
let parts: Parts
const signal = () => AbortSignal.timeout(120_000)

before(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'icebox-full-'))
  execFileSync('truncate', ['-s', `${DISK_MIB}M`, join(scratch, 'disk')])
  execFileSync('mke2fs', ['-q', '-t', 'ext4', '-m', '0', join(scratch, 'disk')])
  execFileSync('mkdir', [join(scratch, 'data')])
  execFileSync('mount', ['-o', 'loop', join(scratch, 'disk'), join(scratch, 'data')])
  parts = await openParts(join(scratch, 'data'))
  const image = await parts.project.images.pull(BASE_IMAGE, () => undefined, signal())
  const size = { memoryMiB: 512, diskMiB: 256 }
  const build = await parts.project.templates.build(
    { name: 'base', image: image.spec.digest, size, env: {} },
    () => undefined,
    signal(),
  )
  await build.settled
})

after(async () => {
  try {
    await parts.control.close('kill', signal())
    await parts.data.close()
  } finally {
    execFileSync('umount', [join(scratch, 'data')])
    await rm(scratch, { recursive: true, force: true })
    await rm(parts.data.run, { recursive: true, force: true })
  }
})

async function run(sandbox: string, script: string): Promise<string> {
  const session = await parts.project.sandboxes.exec(sandbox, { argv: ['sh', '-ec', script] }, signal())
  const chunks: Uint8Array[] = []
  for await (const event of session.events) {
    if (event.type === 'output') chunks.push(event.data)
    if (event.type === 'exit') assert.equal(event.exit.exitCode, 0, Buffer.concat(chunks).toString())
  }
  return Buffer.concat(chunks).toString().trim()
}

/** Leaves this many MiB on the disk. */
async function fillTo(freeMiB: number): Promise<void> {
  const { bavail, bsize } = await statfs(parts.data.path)
  const bytes = bavail * bsize - freeMiB * 2 ** 20
  execFileSync('fallocate', ['-l', String(bytes), join(parts.data.path, 'tmp', 'ballast')])
}
const empty = () => rm(join(parts.data.path, 'tmp', 'ballast'), { force: true })

const fullDisk = (error: unknown): error is IceboxError => isError(error, 'NoSpace') && /MiB|full/.test(error.message)

test('a snapshot or a pause that does not fit is refused, and the sandbox runs on and answers', async () => {
  const { project } = parts
  const { settled } = await project.sandboxes.create({ template: 'base', env: {}, metadata: {} }, signal())
  const { metadata } = await settled
  const { name } = metadata
  await run(name, 'head -c 201326592 /dev/urandom > /dev/shm/data; sha256sum /dev/shm/data > /dev/shm/sum')
  await fillTo(100)
  try {
    const snapshot = project.snapshots
      .create(name, { kind: 'memory', stop: false }, signal())
      .then((accepted) => accepted.settled)
    await assert.rejects(snapshot, fullDisk)
    await run(name, 'sha256sum -c /dev/shm/sum')
    await assert.rejects((await project.sandboxes.pause(name, {}, signal())).settled, fullDisk)
    assert.equal((await project.sandboxes.get(name, signal())).status.state, 'running')
    await run(name, 'sha256sum -c /dev/shm/sum')
    const forks = project.sandboxes.fork(name, { count: 2, env: {} }, signal())
    await assert.rejects(forks, fullDisk)
    await run(name, 'sha256sum -c /dev/shm/sum')
  } finally {
    await empty()
  }
  // What was not taken is shown with the reason until it is collected.
  const {
    items: [failed, ...others],
  } = await project.snapshots.list({}, ALL, signal())
  assert.deepEqual([failed?.status.state, others], ['failed', []])
  const collected = await project.collect({ dryRun: false }, signal())
  assert.deepEqual(
    collected.map(({ what, id }) => [what, id]),
    [['snapshot', failed?.metadata.name]],
  )
  assert.deepEqual((await project.snapshots.list({}, ALL, signal())).items, [])
  // With room again the same pause succeeds.
  await (await project.sandboxes.pause(name, {}, signal())).settled
  await (await project.sandboxes.resume(name, signal())).settled
  await run(name, 'sha256sum -c /dev/shm/sum')
  await (await project.sandboxes.delete(name, signal())).settled
})

test('a pause at its end that does not fit: the sandbox runs on and answers, and is paused once it fits', async () => {
  const { project } = parts
  const accepted = await project.sandboxes.create(
    { template: 'base', env: {}, metadata: {}, timeout: 3600, onTimeout: 'pause' },
    signal(),
  )
  const { name } = (await accepted.settled).metadata
  await run(name, 'head -c 201326592 /dev/urandom > /dev/shm/data; sha256sum /dev/shm/data > /dev/shm/sum')
  const told = () => parts.control.events.list({ resource: name }).map(({ to }) => to)
  const end = () => told().slice(2)
  try {
    await fillTo(100)
    await project.sandboxes.renew(name, { timeout: 1 }, signal())
    while (end().length < 2) await sleep(20)
    assert.deepEqual(end(), ['pausing', 'running'])
    await run(name, 'sha256sum -c /dev/shm/sum')
    assert.deepEqual(end(), ['pausing', 'running'])
  } finally {
    await empty()
  }
  while (end().length < 4) await sleep(20)
  assert.deepEqual(end(), ['pausing', 'running', 'pausing', 'paused'])
  await (await project.sandboxes.delete(name, signal())).settled
})

test('a disk that fills up while a pause is being written: the sandbox runs on and answers', async () => {
  const { project } = parts
  const { metadata } = await (await project.sandboxes.create({ template: 'base', env: {}, metadata: {} }, signal()))
    .settled
  const { name } = metadata
  await run(name, 'head -c 201326592 /dev/urandom > /dev/shm/data; sha256sum /dev/shm/data > /dev/shm/sum')
  try {
    const pause = await project.sandboxes.pause(name, {}, signal())
    // Between the check and the writing, somebody else takes the room.
    await fillTo(40)
    await assert.rejects(pause.settled, (error) => isError(error, 'NoSpace'))
    assert.equal((await project.sandboxes.get(name, signal())).status.state, 'running')
    await run(name, 'sha256sum -c /dev/shm/sum')
  } finally {
    await empty()
  }
  await (await project.sandboxes.delete(name, signal())).settled
})

test('a restore whose disk does not fit is refused before it starts, beside those under way too', async () => {
  const { project } = parts
  const { metadata } = await (await project.sandboxes.create({ template: 'base', env: {}, metadata: {} }, signal()))
    .settled
  const { name } = metadata
  await run(name, 'head -c 150000000 /dev/urandom > /root/data; sha256sum /root/data > /root/sum')
  await (await project.sandboxes.pause(name, {}, signal())).settled
  const refused = (error: unknown) => isError(error, 'NoSpace') && /restoring \w+ needs 14\d MiB/.test(error.message)
  const alone = async () => {
    while (parts.node.machines().length > 0) await sleep(5)
  }
  try {
    await alone()
    await fillTo(100)
    await assert.rejects((await project.sandboxes.resume(name, signal())).settled, refused)
    assert.equal((await project.sandboxes.get(name, signal())).status.state, 'paused')
    await empty()
    await (await project.sandboxes.resume(name, signal())).settled
    await run(name, 'sha256sum -c /root/sum')
    const taken = await project.snapshots.create(name, { kind: 'memory', stop: true }, signal())
    const { metadata: snapshot } = await taken.settled
    await alone()
    await fillTo(250)
    const children = await Promise.all(
      [1, 2].map(() => project.sandboxes.create({ snapshotId: snapshot.name, env: {}, metadata: {} }, signal())),
    )
    const results = await Promise.allSettled(children.map(({ settled }) => settled))
    const failures = results.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []))
    assert.equal(failures.length, 1)
    assert.ok(refused(failures[0]), String(failures[0]))
    for (const result of results)
      if (result.status === 'fulfilled') await run(result.value.metadata.name, 'sha256sum -c /root/sum')
    for (const { resource } of children)
      await (await project.sandboxes.delete(resource.metadata.name, signal())).settled
  } finally {
    await empty()
  }
})

test('of a fork whose children do not all fit, those that do are there and nothing of the others', async () => {
  const { project } = parts
  const { metadata } = await (await project.sandboxes.create({ template: 'base', env: {}, metadata: {} }, signal()))
    .settled
  const { name } = metadata
  await run(name, 'head -c 150000000 /dev/urandom > /root/data; sha256sum /root/data > /root/sum')
  const taken = await (await project.snapshots.create(name, { kind: 'memory', stop: false }, signal())).settled
  try {
    // Room for the fork's own snapshot, as large as this one, and for one child.
    await fillTo((taken.status.sizeBytes ?? 0) / 2 ** 20 + 250)
    const results = await project.sandboxes.fork(name, { count: 2, env: {} }, signal())
    const errors = results.flatMap((result) => ('error' in result ? [result.error] : []))
    assert.equal(errors.length, 1)
    assert.ok(fullDisk(errors[0]), String(errors[0]))
    const children = results.flatMap((result) => ('sandbox' in result ? [result.sandbox.metadata.name] : []))
    const { items: there } = await project.sandboxes.list({}, ALL, signal())
    assert.deepEqual(there.map((sandbox) => sandbox.metadata.name).sort(), [name, ...children].sort())
    for (const child of children) await run(child, 'sha256sum -c /root/sum')
  } finally {
    await empty()
  }
  for (const sandbox of (await project.sandboxes.list({}, ALL, signal())).items)
    await (await project.sandboxes.delete(sandbox.metadata.name, signal())).settled
})

test('a server that goes down pauses several sandboxes at once, and the others when one does not fit', async () => {
  const make = async () => {
    const accepted = await parts.project.sandboxes.create({ template: 'base', env: {}, metadata: {} }, signal())
    const { name } = (await accepted.settled).metadata
    await run(name, 'echo here > /dev/shm/mark')
    return name
  }
  const large = await make()
  await run(large, 'head -c 201326592 /dev/urandom > /dev/shm/data; sha256sum /dev/shm/data > /dev/shm/sum')
  const small = [await make(), await make()]
  const known = parts.control.events.list({}).at(-1)?.id
  try {
    await fillTo(200)
    await parts.control.close('pause', signal())
    await parts.data.close()
  } finally {
    await empty()
  }
  parts = await openParts(parts.data.path)
  const events = parts.control.events.list(known === undefined ? {} : { after: known })
  const fates = events.filter(({ to }) => to === 'pausing' || to === 'paused' || to === 'running')
  assert.ok(
    fates.slice(0, 2).every(({ to }) => to === 'pausing'),
    JSON.stringify(fates),
  )
  const fatesOf = (name: string) => fates.filter(({ resource }) => resource === name).map(({ to }) => to)
  assert.deepEqual(fatesOf(large), ['pausing', 'running'])
  for (const name of small) assert.deepEqual(fatesOf(name).slice(0, 2), ['pausing', 'paused'])
  await run(large, 'sha256sum -c /dev/shm/sum')
  for (const name of small) {
    await parts.project.sandboxes.connect(name, {}, signal())
    assert.equal(await run(name, 'cat /dev/shm/mark'), 'here')
  }
  for (const name of [large, ...small]) await (await parts.project.sandboxes.delete(name, signal())).settled
})
