import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { promisify } from 'node:util'
import {
  type ExecutionId,
  IceboxError,
  isError,
  type MachineExit,
  type MachineSpec,
  type Node,
  newExecutionId,
  newSnapshotId,
} from '@icebox/model'
import { openDataDirectory, openKeyring, openSnapshots, type Snapshots } from '@icebox/snapshot'
import { cacheDirectory } from './cache.ts'
import { hello, SIZE } from './driver/conformance.ts'
import type { Driver, Machine } from './driver/driver.ts'
import { gvisorDriver } from './driver/gvisor/gvisor.ts'
import { readRecord } from './driver/gvisor/record.ts'
import { openImageStore } from './images/store.ts'
import { openLocalNode } from './local-node.ts'
import { ensureGuest } from './setup/guest.ts'
import { ensureRunsc } from './setup/runsc.ts'

const exec = promisify(execFile)
const signal = AbortSignal.timeout(300_000)

/** A node on a data directory of its own, and an image that holds next to nothing but an extended attribute. */
async function installation(t: TestContext) {
  const root = await mkdtemp(join(tmpdir(), 'icebox-node-'))
  const data = await openDataDirectory(join(root, 'data'))
  const opened: Node[] = []
  t.after(async () => {
    const node = opened.at(-1)
    for (const { execution } of node?.machines() ?? []) await node?.kill(execution, signal)
    await node?.close()
    await data.close()
    await rm(data.run, { recursive: true, force: true })
    await rm(root, { recursive: true, force: true })
  })
  const [runsc, guest, keyring] = await Promise.all([ensureRunsc(signal), ensureGuest(signal), openKeyring(data.path)])
  const images = openImageStore({ directory: data.images, cacheDirectory: cacheDirectory() })
  const tree = join(root, 'tree')
  await mkdir(join(tree, 'etc'), { recursive: true })
  await writeFile(join(tree, 'file'), 'content')
  await exec('setfattr', ['-n', 'user.x', '-v', 'value', join(tree, 'file')])
  const image = await images.pull(`dir:${tree}`, () => {}, signal)
  const trouble: string[] = []
  return {
    data,
    imageFile: images.path(image.digest, 'erofs'),
    spec: { imageDigest: image.digest, size: SIZE },
    trouble,
    /** The node that comes after the one opened last. */
    async open(
      change: (driver: Driver) => Driver = (driver) => driver,
      withSnapshots: (snapshots: Snapshots) => Snapshots = (snapshots) => snapshots,
    ): Promise<Node> {
      await opened.at(-1)?.close()
      const driver = gvisorDriver({
        runsc,
        guest,
        dataDirectory: data.path,
        runDirectory: data.run,
        imagePath: (digest) => images.path(digest, 'erofs'),
      })
      const node = await openLocalNode(
        {
          driver: change(driver),
          images,
          snapshots: withSnapshots(openSnapshots({ directory: data.snapshots, tmp: data.tmp, keyring })),
          bootFile: join(data.path, 'boot'),
          tmp: data.tmp,
          agentVersion: 'test',
          slots: 0,
          onTrouble: (what, error) => trouble.push(`${what}: ${error.message}`),
        },
        signal,
      )
      opened.push(node)
      return node
    },
  }
}

/** The same thing with one of its methods replaced. */
const replacing = <T extends object, K extends keyof T>(thing: T, method: K, by: T[K]): T =>
  new Proxy(thing, {
    get(target, name) {
      const value: unknown = name === method ? by : Reflect.get(target, name, target)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })

/** The driver with another `adopt`. */
const adopting = (driver: Driver, adopt: Driver['adopt']): Driver => replacing(driver, 'adopt', adopt)

test('a boot whose extended attributes cannot be set leaves no machine', async (t) => {
  const { open, spec, imageFile, data } = await installation(t)
  const node = await open()
  const content = await readFile(imageFile)
  const damaged = Buffer.from(content)
  damaged.write('{', content.lastIndexOf('user.x') - 2)
  await writeFile(imageFile, damaged)
  const execution = newExecutionId()
  await assert.rejects(node.boot(execution, spec, hello(execution), signal), (thrown) =>
    isError(thrown, 'ImageInvalid'),
  )
  assert.deepEqual(node.machines(), [])
  assert.deepEqual(await readdir(join(data.run, 'machines')), [])
  await writeFile(imageFile, content)
  await node.boot(execution, spec, hello(execution), signal)
  assert.deepEqual(node.machines(), [{ execution, frozen: false }])
})

test('a machine whose guest does not answer its next server is lost, and the others are taken over', async (t) => {
  const { open, spec, trouble, data } = await installation(t)
  const node = await open()
  const [kept, lost] = [newExecutionId(), newExecutionId()]
  for (const execution of [kept, lost]) await node.boot(execution, spec, hello(execution), signal)
  const next = await open((driver) =>
    adopting(driver, async (until) => {
      const found = await driver.adopt(until)
      found.machines.find(({ execution }) => execution === lost)?.link.detach()
      return found
    }),
  )
  assert.deepEqual(next.machines(), [{ execution: kept, frozen: false }])
  const exits: MachineExit[] = []
  next.onExit((exit) => exits.push(exit))
  assert.deepEqual(
    exits.map(({ execution, reason }) => [execution, reason]),
    [[lost, 'Crashed']],
  )
  assert.match(exits[0]?.message ?? '', /did not answer/)
  assert.deepEqual(await readdir(join(data.run, 'machines')), [kept])
  assert.deepEqual(trouble, [])
})

/** A machine whose process is stopped after its boot: its guest answers nothing. */
async function bootStopped(
  node: Node,
  spec: MachineSpec,
  run: string,
): Promise<{ execution: ExecutionId; pid: number }> {
  const execution = newExecutionId()
  await node.boot(execution, spec, hello(execution), signal)
  const pid = (await readRecord(join(run, 'machines', execution)))?.process?.pid
  assert.ok(pid)
  process.kill(pid, 'SIGSTOP')
  return { execution, pid }
}

test('a guest that answers later is taken over without the start waiting for it', async (t) => {
  const { open, spec, data } = await installation(t)
  const { execution, pid } = await bootStopped(await open(), spec, data.run)
  let next: Node
  try {
    next = await open()
    assert.deepEqual(next.machines(), [{ execution, frozen: false }])
  } finally {
    process.kill(pid, 'SIGCONT')
  }
  const exits: MachineExit[] = []
  next.onExit((exit) => exits.push(exit))
  assert.equal((await next.guest(execution).stat('/file', {}, signal)).path, '/file')
  assert.deepEqual(exits, [])
})

test('a guest that never answers its next server is lost after a while, which nobody waits for', async (t) => {
  const { open, spec, data } = await installation(t)
  const { execution } = await bootStopped(await open(), spec, data.run)
  const next = await open()
  const { promise: lost, resolve } = Promise.withResolvers<MachineExit>()
  next.onExit(resolve)
  await assert.rejects(next.guest(execution).stat('/file', {}, signal), (thrown) => isError(thrown, 'GuestFailed'))
  const { execution: which, reason, message } = await lost
  assert.deepEqual([which, reason], [execution, 'Crashed'])
  assert.match(message ?? '', /did not answer/)
  assert.deepEqual(next.machines(), [])
})

test('a guest that does not hold its processes is not saved, keeps nobody waiting, and runs on', async (t) => {
  const { open, spec, data, trouble } = await installation(t)
  const node = await open()
  const execution = newExecutionId()
  await node.boot(execution, spec, hello(execution), signal)
  const record = await readRecord(join(data.run, 'machines', execution))
  const pid = record?.process?.pid
  assert.ok(pid)
  process.kill(pid, 'SIGSTOP')
  const options = { kind: 'memory', hold: true, env: {} } as const
  try {
    await assert.rejects(node.save(execution, newSnapshotId(), options, AbortSignal.timeout(60_000)), (thrown) =>
      isError(thrown, 'GuestFailed'),
    )
  } finally {
    process.kill(pid, 'SIGCONT')
  }
  assert.deepEqual(node.machines(), [{ execution, frozen: false }])
  assert.deepEqual(await node.listSnapshots(signal), [])
  assert.equal((await node.guest(execution).stat('/file', {}, signal)).path, '/file')
  await node.save(execution, newSnapshotId(), options, signal)
  assert.deepEqual(node.machines(), [{ execution, frozen: true }])
  assert.deepEqual(trouble, [])
})

test('a save that fails at any step leaves the state once: in the machine, or in the snapshot', async (t) => {
  const { open, spec, data } = await installation(t)
  let failAt = ''
  /** Does the step, and then fails when it is the one that is to. */
  const steps =
    <A extends unknown[], R>(name: string, real: (...words: A) => Promise<R>) =>
    async (...words: A): Promise<R> => {
      const result = await real(...words)
      if (failAt.split('+').includes(name)) throw new IceboxError('Internal', `after ${name}`)
      return result
    }
  const machineOf = (real: Machine): Machine => {
    const link = replacing(real.link, 'quiesce', steps('quiesce', real.link.quiesce.bind(real.link)))
    const frozen = replacing(real, 'freeze', steps('freeze', real.freeze.bind(real)))
    const saved = replacing(frozen, 'save', steps('save', real.save.bind(real)))
    return new Proxy(saved, { get: (target, name) => (name === 'link' ? link : Reflect.get(target, name)) })
  }
  const node = await open(
    (driver) => replacing(driver, 'boot', async (...words) => machineOf(await driver.boot(...words))),
    (snapshots) => {
      const begin: Snapshots['begin'] = async (...words) => {
        const draft = await snapshots.begin(...words)
        return {
          directory: draft.directory,
          commit: steps('commit', draft.commit),
          discard: steps('discard', draft.discard),
        }
      }
      const remove: Snapshots['remove'] = async (...words) => {
        if (failAt.includes('remove')) throw new IceboxError('Internal', 'instead of remove')
        await snapshots.remove(...words)
      }
      const opened = replacing(snapshots, 'open', steps('open', snapshots.open.bind(snapshots)))
      return replacing(replacing(opened, 'begin', begin), 'remove', remove)
    },
  )
  const execution = newExecutionId()
  await node.boot(execution, spec, hello(execution), signal)
  for (const hold of [true, false])
    for (const step of [
      'quiesce',
      'freeze',
      'save',
      'save+discard',
      'commit',
      'open',
      'commit+remove',
      'open+remove',
    ]) {
      failAt = step
      const id = newSnapshotId()
      await assert.rejects(node.save(execution, id, { kind: 'memory', hold, env: {} }, signal), /after/, step)
      failAt = ''
      const [{ frozen } = { frozen: false }] = node.machines()
      const stays = (await node.listSnapshots(signal)).includes(id)
      assert.deepEqual(
        [frozen, stays],
        step.includes('remove') ? [hold, true] : [false, false],
        `${step}, hold ${hold}`,
      )
      await node.removeSnapshot(id, signal)
      await node.thaw(execution, signal)
      assert.equal((await node.guest(execution).stat('/file', {}, signal)).path, '/file', step)
    }
  const id = newSnapshotId()
  await node.save(execution, id, { kind: 'memory', hold: true, env: {} }, signal)
  assert.deepEqual(await node.listSnapshots(signal), [id])
  assert.deepEqual(
    (await readdir(data.tmp)).filter((name) => !name.startsWith('undigested-')),
    [],
  )
})
