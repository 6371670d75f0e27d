import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { promisify } from 'node:util'
import { isError, type MachineExit, type Node, newExecutionId } from '@icebox/model'
import { openDataDirectory, openKeyring, openSnapshots } from '@icebox/snapshot'
import { cacheDirectory } from './cache.ts'
import { hello, SIZE } from './driver/conformance.ts'
import type { Driver } from './driver/driver.ts'
import { gvisorDriver } from './driver/gvisor/gvisor.ts'
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
    async open(change: (driver: Driver) => Driver = (driver) => driver): Promise<Node> {
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
          snapshots: openSnapshots({ directory: data.snapshots, tmp: data.tmp, keyring }),
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

/** The driver with another `adopt`. */
const adopting = (driver: Driver, adopt: Driver['adopt']): Driver =>
  new Proxy(driver, {
    get(target, name) {
      const value: unknown = name === 'adopt' ? adopt : Reflect.get(target, name, target)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })

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
