import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { mkdir, mkdtemp, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { type MachineSpec, newExecutionId } from '@icebox/model'
import { layoutOf } from '../../cgroup/layout.ts'
import { cgroupMounts } from '../../cgroup/mounts.ts'
import { hello, SIZE, say } from '../conformance.ts'
import type { Machine } from '../driver.ts'
import { bundleOf, type Container, destroyContainer } from './container.ts'
import { createContainer } from './create.ts'
import { prepareHost } from './host.ts'
import { launch, planOf } from './launch.ts'
import { PIDS } from './limits.ts'
import { findProcesses, isAlive, killProcess } from './process.ts'
import { GvisorInstallation, testImage } from './testing.ts'

const DEADLINE_MS = 240_000

describe('slots', { timeout: DEADLINE_MS }, () => {
  let installation: GvisorInstallation
  let spec: MachineSpec
  let saved: { directory: string; kind: 'memory' }
  const signal = AbortSignal.timeout(DEADLINE_MS)

  before(async () => {
    spec = { imageDigest: (await testImage(signal)).digest, size: SIZE }
    installation = await GvisorInstallation.make(signal)
    await installation.driver.adopt(signal)
    const source = await installation.driver.boot(newExecutionId(), spec, signal)
    await source.link.hello(hello(source.execution), signal)
    saved = { directory: await mkdtemp(join(installation.dataDirectory, 'saved-')), kind: 'memory' }
    await source.link.quiesce(signal)
    await source.freeze(signal)
    await source.save(saved.directory, 'memory', signal)
    await source.kill(signal)
  })
  after(() => installation?.remove())

  const slots = () => readdir(join(installation.runDirectory, 'slots'))
  const restore = async () => {
    const machine = await installation.driver.restore(newExecutionId(), saved, spec, signal)
    await machine.link.hello(hello(machine.execution), signal)
    return machine
  }
  const usesSlot = async (machine: Machine) => (await installation.record(machine)).container !== machine.execution

  /** What the driver makes containers of. */
  const parts = async () => {
    const { programs, dataDirectory, runDirectory, image } = installation
    const host = await prepareHost({ ...programs, dataDirectory, runDirectory, imagePath: () => image })
    return { host, plan: planOf(host, spec, { digest: await host.agents.current() }) }
  }

  test('a part of a container that cannot be made: the others are there before it fails, to be taken away', async () => {
    const { host, plan } = await parts()
    const id = newExecutionId()
    const directory = join(host.slots, id)
    await mkdir(directory)
    await mkdir(bundleOf(host, id))
    // The last that is written of the group.
    const { path } = host.cgroups.find(id)
    const [last] = layoutOf(await cgroupMounts()).limits(path, { pids: PIDS }, '')
    assert.ok(last)
    // Looked at in the very moment: what is made later is no longer taken away.
    const failed = await createContainer(host, id, directory, plan, signal).catch((thrown: unknown) => {
      assert.match(String(thrown), /EEXIST/)
      return { pids: existsSync(last.file) && readFileSync(last.file, 'utf8').trim() }
    })
    assert.deepEqual(failed, { pids: last.value })
    await destroyContainer(host, id, directory)
    assert.deepEqual(await installation.traces(), [])
  })

  test('a slot that cannot be taken fails the launch, and nothing is left', async () => {
    const { host, plan } = await parts()
    const takeSlot = () => Promise.reject(new Error('it cannot be removed'))
    const go = (container: Container) => container.start(signal)
    await assert.rejects(
      launch(host, { execution: newExecutionId(), plan, operation: 'boot', takeSlot, go }, signal),
      /cannot be removed/,
    )
    assert.deepEqual(await installation.traces(), [])
  })

  test('there are as many as were asked for, and again after some were used', async () => {
    await installation.driver.prepare(spec, 2, signal)
    assert.equal((await slots()).length, 2)
    let most = 0
    let done = false
    const watching = (async () => {
      while (!done) {
        most = Math.max(most, (await slots()).length)
        await sleep(5)
      }
    })()
    const machines = await Promise.all([restore(), restore(), restore()])
    await installation.driver.prepare(spec, 2, signal)
    done = true
    await watching
    assert.equal(most, 2)
    assert.equal((await slots()).length, 2)
    assert.equal((await Promise.all(machines.map(usesSlot))).filter(Boolean).length, 2)
    for (const machine of machines) assert.equal(await say(machine, 'echo on', signal), 'on')
    await Promise.all(machines.map((machine) => machine.kill(signal)))
  })

  test('a slot serves machines of its own spec only', async () => {
    const other = { ...spec, size: { ...SIZE, memoryMiB: SIZE.memoryMiB + 64 } }
    const machine = await installation.driver.boot(newExecutionId(), other, signal)
    assert.equal(await usesSlot(machine), false)
    await machine.kill(signal)
    const same = await installation.driver.boot(newExecutionId(), spec, signal)
    assert.equal(await usesSlot(same), true)
    await same.kill(signal)
  })

  test('a slot that died meanwhile is passed over', async () => {
    await installation.driver.prepare(spec, 1, signal)
    const [id] = await slots()
    const ofSlot = await findProcesses(`--root=${join(installation.runDirectory, 'runsc', id ?? '')}`)
    for (const { identity } of ofSlot) {
      await killProcess(identity)
      while (await isAlive(identity)) await sleep(5)
    }
    const machine = await restore()
    assert.notEqual((await installation.record(machine)).container, id)
    assert.equal(await say(machine, 'echo on', signal), 'on')
    await machine.kill(signal)
  })

  test('a slot that dies as it is taken costs nothing but time', async () => {
    const { host, plan } = await parts()
    const id = newExecutionId()
    const directory = join(host.slots, id)
    await mkdir(directory)
    const slot = await createContainer(host, id, directory, plan, signal)
    const takeSlot = async () => {
      await killProcess(slot.process)
      while (await slot.isAlive()) await sleep(5)
      return slot
    }
    const go = (container: Container) => container.start(signal)
    const machine = await launch(host, { execution: newExecutionId(), plan, operation: 'boot', takeSlot, go }, signal)
    await machine.link.hello(hello(machine.execution), signal)
    assert.equal(await say(machine, 'echo on', signal), 'on')
    assert.equal(await usesSlot(machine), false)
    assert.equal((await slots()).includes(id), false)
    await machine.kill(signal)
  })

  test('they end with the driver, and at once when none are wanted', async () => {
    await installation.driver.prepare(spec, 2, signal)
    await installation.driver.prepare(spec, 0, signal)
    assert.deepEqual(await slots(), [])
    await installation.driver.prepare(spec, 1, signal)
    await installation.driver.close()
    assert.deepEqual(await installation.traces(), [])
  })
})
