import assert from 'node:assert/strict'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { isIceboxError, type Sandbox } from '@icebox/sdk'
import { flipBit } from './faults/flip-bit.ts'
import { buildBase, eventually, output, ServerProcess } from './server-process.ts'

let server: ServerProcess
before(async () => {
  server = await ServerProcess.start('lifecycle', { flags: ['--no-base', '--registry-allow', '127.0.0.1/32'] })
  await buildBase(server.icebox, { memoryMiB: 256 })
})
after(() => server[Symbol.asyncDispose]())

type Options = Omit<Parameters<typeof server.icebox.sandboxes.create>[0], 'template'>
const create = (options: Options = {}) => server.icebox.sandboxes.create({ template: 'base', ...options })
const stateOf = async (sandbox: Sandbox) => (await server.icebox.sandboxes.connect(sandbox.id)).resource.status.state
const becomes = (sandbox: Sandbox, wanted: string) =>
  eventually(async () => ((await stateOf(sandbox)) === wanted ? true : undefined), `${sandbox.id} becomes ${wanted}`)
const isGone = (sandbox: Sandbox) =>
  eventually(async () => {
    const answer = await server.icebox.sandboxes.connect(sandbox.id).catch((thrown: unknown) => thrown)
    return isIceboxError(answer, 'NotFound') ? true : undefined
  }, `${sandbox.id} goes`)
const mark = (sandbox: Sandbox, text: string) =>
  output(sandbox.exec(['sh', '-c', `echo ${text} > /dev/shm/mark; echo ${text} > /root/mark`]))
const marks = (sandbox: Sandbox) => output(sandbox.exec(['cat', '/dev/shm/mark', '/root/mark']))
const secondsLeft = async (sandbox: Sandbox) => (Date.parse((await sandbox.info()).expiresAt ?? '') - Date.now()) / 1000

/** The log has so many lines about the sandbox with these facts, once all are written: that of an operation comes after its end. */
async function isLogged(sandbox: Sandbox, facts: Record<string, string>, times: number): Promise<void> {
  const found = await eventually(
    async () => {
      const lines = (await readFile(join(server.dataDirectory, 'server.log'), 'utf8')).split('\n').slice(0, -1)
      const about = lines
        .map((line): Record<string, unknown> => JSON.parse(line))
        .filter(
          (line) => line.sandbox === sandbox.id && Object.entries(facts).every(([key, value]) => line[key] === value),
        )
      return about.length >= times ? about : undefined
    },
    `the log tells ${Object.values(facts)} of ${sandbox.id} ${times} times`,
  )
  assert.equal(found.length, times)
}

test('a sandbox is paused at its end, once, and goes on with all it had, cycle after cycle, as after a pause by hand', async () => {
  const sandbox = await create({ timeout: 2, onTimeout: 'pause' })
  assert.equal(sandbox.resource.onTimeout, 'pause')
  assert.equal(sandbox.resource.timeout, 2)
  await mark(sandbox, 'first')
  await becomes(sandbox, 'Paused')
  assert.equal((await sandbox.info()).expiresAt, undefined, 'while it is paused no time runs')
  await sandbox.ensureRunning({ timeout: 600 })
  assert.equal(await marks(sandbox), 'first\nfirst')
  await mark(sandbox, 'second')
  await sandbox.renew({ timeout: 1 })
  await becomes(sandbox, 'Paused')
  await isLogged(sandbox, { event: 'sandbox.expired' }, 2)
  // By hand, and resumed for as long as it was given first.
  await sandbox.ensureRunning({ timeout: 600 })
  assert.equal(await marks(sandbox), 'second\nsecond')
  await sandbox.pause()
  await sandbox.resume()
  assert.ok((await secondsLeft(sandbox)) <= 2)
  await becomes(sandbox, 'Paused')
  // That of the pause before goes once this one is durable.
  await eventually(async () => {
    const { length } = await server.icebox.snapshots.list({ hidden: true, sandbox: sandbox.id })
    return length === 1 || undefined
  }, 'one snapshot is left')
  await sandbox.ensureRunning({ timeout: 600 })
  assert.equal(await marks(sandbox), 'second\nsecond')
  await sandbox.delete()
})

test('a sandbox that somebody paused has no end', async () => {
  const sandbox = await create({ timeout: 4 })
  await sandbox.pause()
  // Another one, whose end comes later, goes.
  const other = await create({ timeout: 4 })
  await isGone(other)
  assert.equal(await stateOf(sandbox), 'Paused')
  await assert.rejects(sandbox.renew({ timeout: 60 }), (error) => isIceboxError(error, 'InvalidState'))
  await sandbox.ensureRunning({ timeout: null })
  assert.equal((await sandbox.info()).expiresAt, undefined)
  await sandbox.delete()
})

test('an end that passed while no server ran is carried out at the next start, also after a shutdown that paused', async () => {
  const [killed, paused, kept] = await Promise.all([
    create({ timeout: 3600 }),
    create({ timeout: 3600, onTimeout: 'pause' }),
    create({ timeout: 3600 }),
  ])
  for (const each of [killed, paused, kept]) await mark(each, 'here')
  const end = Date.now() + 4000
  const expiresAt = new Date(end).toISOString()
  await Promise.all([killed.renew({ expiresAt }), paused.renew({ expiresAt })])
  await server.kill()
  await sleep(end - Date.now())
  await server.restart()
  await isGone(killed)
  const again = await server.icebox.sandboxes.connect(paused.id)
  await becomes(again, 'Paused')
  await again.ensureRunning()
  assert.equal(await marks(again), 'here\nhere')

  const [gone, stays] = [await create({ timeout: 3600 }), again]
  const until = Date.now() + 6000
  const soon = new Date(until).toISOString()
  await Promise.all([gone.renew({ expiresAt: soon }), stays.renew({ expiresAt: soon })])
  const { expiresAt: late } = (await server.icebox.sandboxes.connect(kept.id)).resource
  await server.down('pause')
  await sleep(until - Date.now())
  await server.restart()
  await isGone(gone)
  await becomes(kept, 'Running')
  assert.equal(await stateOf(stays), 'Paused')
  const found = await server.icebox.sandboxes.connect(kept.id)
  assert.equal(found.resource.expiresAt, late, 'its time went on')
  assert.equal(await marks(found), 'here\nhere')
  for (const each of [found, await server.icebox.sandboxes.connect(stays.id)]) await each.delete()
})

test('a server killed while it pauses a sandbox at its end: the next one has it paused, with all it had', async () => {
  const sandbox = await create({ timeout: 3600, onTimeout: 'pause' })
  await output(sandbox.exec(['sh', '-c', 'head -c 100M /dev/urandom > /dev/shm/much']))
  await mark(sandbox, 'here')
  await sandbox.renew({ expiresAt: new Date(Date.now() + 200).toISOString() })
  await becomes(sandbox, 'Pausing')
  await server.kill()
  await server.restart()
  const again = await server.icebox.sandboxes.connect(sandbox.id)
  await becomes(again, 'Paused')
  await again.ensureRunning({ timeout: 600 })
  assert.equal(await marks(again), 'here\nhere')
  assert.equal((await server.icebox.snapshots.list({ hidden: true, sandbox: again.id })).length, 1)
  await again.delete()
})

test('an extension and an end at the same time: exactly one wins', async () => {
  for (const onTimeout of ['kill', 'pause'] as const) {
    const raced = await Promise.all(
      [-20, -5, 0, 5, 40].map(async (offset) => {
        const sandbox = await create({ timeout: 3600, onTimeout })
        const end = Date.now() + 1500
        await sandbox.renew({ expiresAt: new Date(end).toISOString() })
        await sleep(end + offset - Date.now())
        const renewed = await sandbox.renew({ timeout: 3600 }).then(
          () => true,
          (error: unknown) => {
            assert.ok(isIceboxError(error, 'Conflict', 'InvalidState', 'NotFound'), String(error))
            return false
          },
        )
        return { sandbox, renewed }
      }),
    )
    for (const { sandbox, renewed } of raced) {
      if (renewed) assert.equal(await stateOf(sandbox), 'Running')
      else if (onTimeout === 'kill') await isGone(sandbox)
      else await becomes(sandbox, 'Paused')
      if (renewed || onTimeout === 'pause') await sandbox.delete()
    }
  }
})

test('a pause by hand that meets one at its end that an extension makes void pauses it all the same', async () => {
  const sandbox = await create({ timeout: 3600, onTimeout: 'pause' })
  // So much that a snapshot takes a while: the pause at its end waits for it.
  await output(sandbox.exec(['sh', '-c', 'for at in /dev/shm /root; do head -c 100M /dev/urandom > $at/much; done']))
  await mark(sandbox, 'here')
  let isTaken = false
  const snapshot = sandbox.snapshot().finally(() => {
    isTaken = true
  })
  await sandbox.renew({ expiresAt: new Date(Date.now() + 50).toISOString() })
  await isLogged(sandbox, { event: 'sandbox.expired' }, 1)
  const other = await server.icebox.sandboxes.connect(sandbox.id)
  const paused = other.pause()
  paused.catch(() => undefined)
  await sandbox.renew({ timeout: 3600 })
  assert.equal(isTaken, false, 'all of this happens while the snapshot is taken')
  await paused
  assert.equal(await stateOf(sandbox), 'Paused')
  await server.icebox.snapshots.delete((await snapshot).id)
  await sandbox.ensureRunning()
  assert.equal(await marks(sandbox), 'here\nhere')
  await sandbox.delete()
})

test('who connects waits until it runs and shares one resume; an end is never brought nearer', async () => {
  const sandbox = await create({ timeout: 3600 })
  assert.deepEqual(await sandbox.ensureRunning({ timeout: 5 }), { resumed: false })
  assert.ok((await secondsLeft(sandbox)) > 3000)
  await sandbox.ensureRunning({ timeout: 7200 })
  assert.ok((await secondsLeft(sandbox)) > 7000)
  await sandbox.pause()
  const connected = await Promise.all(
    Array.from({ length: 8 }, async (_, index) => {
      const each = await server.icebox.sandboxes.connect(sandbox.id)
      const { resumed } = await each.ensureRunning({ timeout: 100 + index })
      return { resumed, state: each.resource.status.state }
    }),
  )
  assert.deepEqual(new Set(connected.map(({ state }) => state)), new Set(['Running']))
  assert.ok(connected.some(({ resumed }) => resumed))
  await isLogged(sandbox, { operation: 'resume' }, 1)
  const left = await secondsLeft(sandbox)
  assert.ok(left > 95 && left <= 107, `${left} s are left`)
  await sandbox.renew({ timeout: 50, onlyExtend: true })
  assert.ok((await secondsLeft(sandbox)) > 90)
  await sandbox.renew({ timeout: 50 })
  assert.ok((await secondsLeft(sandbox)) <= 50)
  await sandbox.delete()
  await assert.rejects(sandbox.ensureRunning(), (error) => isIceboxError(error, 'NotFound'))
})

test('who connects while it is being paused resumes it; its time cannot be changed then', async () => {
  const sandbox = await create({ timeout: 3600, onTimeout: 'pause' })
  // So much memory that a pause takes a while.
  await output(sandbox.exec(['sh', '-c', 'head -c 100M /dev/urandom > /dev/shm/much']))
  await mark(sandbox, 'here')
  const pause = sandbox.pause()
  pause.catch(() => undefined)
  await becomes(sandbox, 'Pausing')
  const other = await server.icebox.sandboxes.connect(sandbox.id)
  const [renewal, resumption] = await Promise.allSettled([other.renew({ timeout: 60 }), other.ensureRunning()])
  assert.ok(renewal.status === 'rejected' && isIceboxError(renewal.reason, 'Conflict'), JSON.stringify(renewal))
  assert.deepEqual(resumption, { status: 'fulfilled', value: { resumed: true } })
  assert.equal(await marks(other), 'here\nhere')
  await pause
  // The same with the pause at its end.
  await other.renew({ expiresAt: new Date(Date.now() + 300).toISOString() })
  await becomes(other, 'Pausing')
  await other.ensureRunning({ timeout: 600 })
  assert.equal(await marks(other), 'here\nhere')
  assert.ok((await secondsLeft(other)) > 500)
  await other.delete()
})

test('an exec, a file call and a connection to a port resume a sandbox that asks for it, all in one', async () => {
  const sandbox = await create({ timeout: 5, onTimeout: 'pause', autoResume: true })
  await sandbox.ensureRunning({ timeout: 3600 })
  await mark(sandbox, 'here')
  await sandbox.files.write('/root/listen.py', LISTEN)
  await sandbox.spawn(['python3', '/root/listen.py'])
  await eventually(async () => (await sandbox.port(8000).catch(() => undefined))?.destroy(), 'it listens')
  await sandbox.pause()
  // Looking does not resume it.
  await sandbox.info()
  await assert.rejects(sandbox.stats(), (error) => isIceboxError(error, 'InvalidState'))
  assert.equal(await stateOf(sandbox), 'Paused')
  const [text, file, port] = await Promise.all([
    marks(sandbox),
    sandbox.files.read('/root/mark'),
    sandbox.port(8000),
    sandbox.files.list('/root'),
    ...Array.from({ length: 4 }, () => output(sandbox.exec(['true']))),
  ])
  port.destroy()
  assert.equal(text, 'here\nhere')
  assert.equal(new TextDecoder().decode(file), 'here\n')
  await isLogged(sandbox, { operation: 'resume' }, 1)
  const left = await secondsLeft(sandbox)
  assert.ok(left > 280 && left <= 300, `${left} s are left`)
  await sandbox.delete()
})

test('a sandbox that does not ask for it stays paused, and so does one that was paused without its memory', async () => {
  const [plain, files] = await Promise.all([create(), create({ autoResume: true })])
  await plain.pause()
  await files.pause({ kind: 'filesystem' })
  for (const sandbox of [plain, files]) {
    await assert.rejects(output(sandbox.exec(['true'])), (error) => isIceboxError(error, 'InvalidState'))
    assert.equal(await stateOf(sandbox), 'Paused')
    await sandbox.delete()
  }
})

test('a resume that fails fails for all who wanted it, and the sandbox stays paused', async () => {
  const sandbox = await create({ autoResume: true })
  await mark(sandbox, 'here')
  const { pausedSnapshotId } = await sandbox.pause()
  assert.ok(pausedSnapshotId)
  assert.deepEqual(await server.icebox.snapshots.verify(pausedSnapshotId), [])
  const pages = join(server.dataDirectory, 'snapshots', pausedSnapshotId, 'files', 'pages.img')
  await flipBit(pages)
  const outcomes = await Promise.allSettled([
    ...Array.from({ length: 3 }, () => output(sandbox.exec(['true']))),
    sandbox.files.read('/root/mark'),
    sandbox.port(8000),
  ])
  for (const outcome of outcomes)
    assert.ok(
      outcome.status === 'rejected' && isIceboxError(outcome.reason, 'SnapshotCorrupt'),
      JSON.stringify(outcome),
    )
  assert.equal(await stateOf(sandbox), 'Paused')
  await flipBit(pages)
  assert.equal(await marks(sandbox), 'here\nhere')
  await sandbox.delete()
})

test('what a shutdown paused and the next start cannot resume still has its end, and later starts try again', async () => {
  const [stays, ends, byHand] = [await create({ timeout: 3600 }), await create(), await create({ timeout: 3600 })]
  await mark(stays, 'here')
  const directory = join(server.dataDirectory, 'snapshots')
  const before = new Set(await readdir(directory))
  await ends.renew({ timeout: 12 })
  await server.down('pause')
  const taken = (await readdir(directory)).filter((id) => !before.has(id))
  assert.equal(taken.length, 3)
  const flipAll = async () => {
    for (const id of taken)
      if (existsSync(join(directory, id))) await flipBit(join(directory, id, 'files', 'pages.img'))
  }
  await flipAll()
  await server.restart()
  const [first, second, third] = await Promise.all(
    [stays, ends, byHand].map(async ({ id }) => {
      const sandbox = await server.icebox.sandboxes.connect(id)
      const { status } = await eventually(async () => {
        const { resource } = await server.icebox.sandboxes.connect(id)
        return resource.status.message === undefined ? undefined : resource
      }, `the resume of ${id} fails`)
      assert.deepEqual([status.state, status.reason], ['Paused', 'Shutdown'])
      return sandbox
    }),
  )
  assert.ok(first && second && third)
  assert.notEqual((await third.info()).expiresAt, undefined)
  await third.pause()
  assert.equal((await third.info()).expiresAt, undefined)
  await isGone(second)
  await server.down('keep')
  await flipAll()
  await server.restart()
  const again = await server.icebox.sandboxes.connect(stays.id)
  await becomes(again, 'Running')
  assert.equal(await marks(again), 'here\nhere')
  const paused = await server.icebox.sandboxes.connect(byHand.id)
  assert.equal(paused.resource.status.state, 'Paused')
  for (const each of [again, paused]) await each.delete()
})

test('a pause of the files alone: they survive, it boots with its environment, and its entrypoint is started again', async () => {
  const sandbox = await create({
    env: { ANSWER: '42' },
    entrypoint: ['sh', '-c', 'echo started >> /root/starts; exec sleep infinity'],
  })
  await mark(sandbox, 'here')
  const facts = async () =>
    output(sandbox.exec(['sh', '-c', 'echo $ANSWER; whoami; pwd; hostname; cat /etc/machine-id']))
  const bootId = () => output(sandbox.exec(['cat', '/proc/sys/kernel/random/boot_id'])).catch(() => undefined)
  const starts = () => output(sandbox.exec(['cat', '/root/starts']))
  const [before, bootBefore] = [await facts(), await bootId()]
  await eventually(async () => ((await starts()) === 'started' ? true : undefined), 'the entrypoint begins')
  const paused = await sandbox.pause({ kind: 'filesystem' })
  assert.ok(paused.pausedSnapshotId)
  assert.equal((await server.icebox.snapshots.get(paused.pausedSnapshotId)).kind, 'filesystem')
  await sandbox.resume()
  assert.equal(await output(sandbox.exec(['sh', '-c', 'cat /root/mark; ls /dev/shm'])), 'here')
  assert.equal(await facts(), before)
  if (bootBefore !== undefined) assert.notEqual(await bootId(), bootBefore)
  await eventually(async () => ((await starts()) === 'started\nstarted' ? true : undefined), 'it begins again')
  // And from there a pause with its memory, as ever.
  await mark(sandbox, 'again')
  await sandbox.pause()
  await sandbox.resume()
  assert.equal(await marks(sandbox), 'again\nagain')
  assert.equal(await starts(), 'started\nstarted')
  await sandbox.delete()
})

test('a sandbox paused without its memory at its end', async () => {
  const sandbox = await create({ timeout: 2, onTimeout: 'pause', pauseKind: 'filesystem' })
  await mark(sandbox, 'here')
  await becomes(sandbox, 'Paused')
  await sandbox.ensureRunning({ timeout: 600 })
  assert.equal(await output(sandbox.exec(['sh', '-c', 'cat /root/mark; ls /dev/shm'])), 'here')
  await sandbox.delete()
  const refused = (error: unknown) => isIceboxError(error, 'InvalidArgument')
  await assert.rejects(create({ onTimeout: 'pause', pauseKind: 'filesystem', autoResume: true }), refused)
  await assert.rejects(create({ pauseKind: 'filesystem' }), refused)
})

test('what was asked for at creation is shown, and a fork has it too, with its own end', async () => {
  const asked = {
    onTimeout: 'pause',
    autoResume: true,
    secure: false,
    publicTraffic: true,
    network: { allowOut: ['10.0.0.0/8'], deep: { er: 1 } },
  } as const
  const sandbox = await create({ ...asked, timeout: 3600, entrypoint: ['sleep', 'infinity'] })
  const [fork] = await sandbox.fork(1, { timeout: 60 })
  assert.ok(fork)
  for (const { resource } of [sandbox, fork]) {
    const { onTimeout, autoResume, secure, publicTraffic, network, pauseKind } = resource
    assert.deepEqual({ onTimeout, autoResume, secure, publicTraffic, network }, asked)
    assert.equal(pauseKind, 'memory')
  }
  assert.equal(fork.resource.timeout, 60)
  assert.ok((await secondsLeft(fork)) <= 60)
  assert.ok((await secondsLeft(sandbox)) > 3000)
  assert.equal(
    await output(fork.exec(['sh', '-c', 'pgrep -c sleep'])),
    '1',
    'the entrypoint goes on and is not doubled',
  )
  await Promise.all([sandbox.delete(), fork.delete()])
})

test('a snapshot and a delete at the same time: the sandbox goes, the snapshot is whole or failed', async () => {
  const sandbox = await create()
  await mark(sandbox, 'here')
  const [taken, deleted] = await Promise.allSettled([sandbox.snapshot(), sandbox.delete()])
  assert.equal(deleted.status, 'fulfilled')
  await isGone(sandbox)
  const snapshots = await server.icebox.snapshots.list({ sandbox: sandbox.id, hidden: true })
  if (taken.status === 'rejected')
    assert.ok(isIceboxError(taken.reason, 'Conflict', 'InvalidState', 'NotFound', 'GuestFailed'), String(taken.reason))
  else {
    assert.deepEqual(
      snapshots.map(({ id, status }) => [id, status.state]),
      [[taken.value.id, 'Ready']],
    )
    const restored = await server.icebox.sandboxes.create({ snapshot: taken.value.id })
    assert.equal(await marks(restored), 'here\nhere')
    await restored.delete()
  }
  for (const { id, status } of snapshots) {
    assert.ok(status.state === 'Ready' || status.state === 'Failed', status.state)
    await server.icebox.snapshots.delete(id)
  }
})

test('a snapshot that a sandbox is being made from, or is paused in, cannot be deleted', async () => {
  const source = await create()
  await mark(source, 'here')
  const snapshot = await source.snapshot()
  const making = server.icebox.sandboxes.create({ snapshot: snapshot.id })
  await eventually(async () => {
    const [newest] = await server.icebox.sandboxes.list()
    return newest?.id === source.id ? undefined : true
  }, 'it is being made')
  const deletion = await server.icebox.snapshots.delete(snapshot.id).then(
    () => undefined,
    (error: unknown) => error,
  )
  const made = await making
  assert.equal(await marks(made), 'here\nhere')
  if (deletion !== undefined) {
    assert.ok(isIceboxError(deletion, 'InUse'), String(deletion))
    await server.icebox.snapshots.delete(snapshot.id)
  }
  const { pausedSnapshotId } = await made.pause()
  assert.ok(pausedSnapshotId)
  await assert.rejects(server.icebox.snapshots.delete(pausedSnapshotId), (error) => isIceboxError(error, 'InUse'))
  await Promise.all([made.delete(), source.delete()])
  const left = (await server.icebox.sandboxes.list()).map(({ id }) => id)
  assert.deepEqual([left.includes(made.id), left.includes(source.id)], [false, false])
})

const LISTEN = `import socket
server = socket.create_server(('127.0.0.1', 8000))
while True:
    server.accept()[0].close()
`

/** A registry that takes connections and never answers. */
async function silentRegistry() {
  const asked: Socket[] = []
  const registry = createServer((socket) => asked.push(socket.on('error', () => undefined))).listen(0, '127.0.0.1')
  await once(registry, 'listening')
  const { port } = registry.address() as AddressInfo
  return {
    uri: `127.0.0.1:${port}/never:1`,
    asked,
    [Symbol.dispose]: () => {
      registry.close()
      for (const socket of asked) socket.destroy()
    },
  }
}

test('a server that goes down waits for no image that does not come; the next one begins to make the sandbox again', async () => {
  using registry = await silentRegistry()
  const { uri, asked } = registry
  const refused = assert.rejects(server.icebox.sandboxes.create({ image: uri }))
  await eventually(async () => asked.length > 0 || undefined, 'the registry is asked')
  const started = performance.now()
  await server.down('keep')
  const took = performance.now() - started
  assert.ok(took < 10_000, `${took} ms`)
  await refused
  const before = asked.length
  await server.restart()
  const [sandbox] = (await server.icebox.sandboxes.list()).filter(({ resource }) => resource.image?.uri === uri)
  assert.equal(sandbox?.resource.status.state, 'Pending')
  await eventually(async () => asked.length > before || undefined, 'the registry is asked again')
  await sandbox?.delete()
})

test('a delete waits for no image that does not come; others that wait for it go on', async () => {
  using registry = await silentRegistry()
  const { uri, asked } = registry
  const waiting = async () =>
    (await server.icebox.sandboxes.list()).filter(({ resource }) => resource.image?.uri === uri)
  const creations = ['first', 'second'].map((name) =>
    server.icebox.sandboxes.create({ image: uri, name }).catch((error: unknown) => error),
  )
  await eventually(async () => ((await waiting()).length === 2 && asked.length > 0) || undefined, 'both wait')
  const closed = asked.map((socket) => once(socket.resume(), 'close'))
  let ended = 0
  for (const each of closed) void each.then(() => ended++)
  for (const [at, name] of ['first', 'second'].entries()) {
    assert.equal(ended, 0, 'the pull goes on while somebody waits for it')
    const sandbox = await server.icebox.sandboxes.connect(name)
    assert.equal(sandbox.resource.status.state, 'Pending')
    await sandbox.delete()
    const refusal = await creations[at]
    assert.ok(isIceboxError(refusal, 'Conflict') && /was deleted while it was being created/.test(refusal.message))
    assert.deepEqual(
      (await waiting()).map(({ resource }) => resource.name),
      ['first', 'second'].slice(at + 1),
    )
  }
  await Promise.all(closed)
})
