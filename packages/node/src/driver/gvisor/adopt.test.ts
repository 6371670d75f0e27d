import assert from 'node:assert/strict'
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, before, describe, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { isError, type MachineSpec, newExecutionId } from '@icebox/model'
import { CgroupTree } from '../../cgroup/cgroup.ts'
import { createNetwork } from '../../network/namespace.ts'
import { hello, SIZE, say } from '../conformance.ts'
import type { Machine } from '../driver.ts'
import { findProcesses, hasOpen, isAlive, killProcess, readBootId } from './process.ts'
import { type MachineRecord, writeRecord } from './record.ts'
import { GvisorInstallation, testImage } from './testing.ts'

const DEADLINE_MS = 300_000
const exec = promisify(execFile)

describe('adoption', { timeout: DEADLINE_MS }, () => {
  let installation: GvisorInstallation
  let spec: MachineSpec
  const signal = AbortSignal.timeout(DEADLINE_MS)

  before(async () => {
    const { digest } = await testImage(signal)
    spec = { imageDigest: digest, size: SIZE }
    installation = await GvisorInstallation.make(signal)
    await installation.driver.adopt(signal)
  })
  after(() => installation?.remove())

  const boot = async () => {
    const machine = await installation.driver.boot(newExecutionId(), spec, signal)
    await machine.link.hello(hello(machine.execution), signal)
    return machine
  }
  /** Another server finds what this one left. The old driver is let go of, as a killed server lets go. */
  const successor = async (...left: Machine[]) => {
    for (const machine of left) machine.link.detach()
    return await installation.restart().adopt(signal)
  }
  const runDirectory = (machine: Machine) => join(installation.runDirectory, 'machines', machine.execution)
  const change = async (machine: Machine, values: Partial<MachineRecord>) =>
    writeRecord(runDirectory(machine), { ...(await installation.record(machine)), ...values })
  const nothingLeft = async () => assert.deepEqual(await installation.traces(), [])

  test('a machine of another boot of the host is lost, and what bears its name is removed', async () => {
    const machine = await boot()
    await change(machine, { bootId: 'another' })
    const { machines, lost } = await successor(machine)
    assert.deepEqual(machines, [])
    assert.deepEqual(
      lost.map(({ execution, reason }) => [execution, reason]),
      [[machine.execution, 'HostRestarted']],
    )
    await nothingLeft()
  })

  test('a machine that nobody was given yet is removed and not counted as lost', async () => {
    const machine = await boot()
    await change(machine, { operation: 'restore' })
    assert.deepEqual(await successor(machine), { machines: [], lost: [] })
    await nothingLeft()
  })

  test('a machine that can neither be reached nor removed is lost, and the others are adopted', async () => {
    const [lost, kept] = [await boot(), await boot()]
    await rm(join(runDirectory(lost), 'in'))
    const busy = join(installation.dataDirectory, 'bundles', lost.execution, 'busy')
    await mkdir(busy)
    await exec('mount', ['-t', 'tmpfs', 'tmpfs', busy])
    try {
      const found = await successor(lost, kept)
      assert.deepEqual(
        found.lost.map(({ execution, reason }) => [execution, reason]),
        [[lost.execution, 'Crashed']],
      )
      assert.match(found.lost[0]?.message ?? '', /did not answer.*what is left: .*EBUSY/)
      const [same] = found.machines
      assert.equal(same?.execution, kept.execution)
      await same.kill(signal)
    } finally {
      await exec('umount', [busy])
    }
    assert.deepEqual((await successor()).machines, [])
    await nothingLeft()
  })

  test('another process with the number of a dead sandbox is let live', async () => {
    const machine = await boot()
    const bystander = spawn('sleep', ['1000'])
    try {
      assert.ok(bystander.pid)
      const { process } = await installation.record(machine)
      assert.ok(process)
      await change(machine, { process: { ...process, pid: bystander.pid } })
      const { machines, lost } = await successor(machine)
      assert.deepEqual([machines.length, lost.length], [0, 1])
      assert.equal(bystander.exitCode ?? bystander.signalCode, null)
      assert.ok(!(await isAlive(process)))
      await nothingLeft()
    } finally {
      bystander.kill('SIGKILL')
    }
  })

  test('a process of somebody else that names our directories is let live, and costs nothing', async () => {
    const machine = await boot()
    const roots = join(installation.runDirectory, 'runsc')
    const witness = join(installation.dataDirectory, 'witness')
    await writeFile(witness, 'x')
    const names = ['..', '../..', '.', '', `${machine.execution}/..`, machine.execution, newExecutionId()]
    const say = (name: string) => [
      process.execPath,
      '-e',
      'setInterval(() => {}, 1000)',
      '--',
      `--root=${roots}/${name}`,
    ]
    const start = (words: string[], options: { uid?: number } = {}) => {
      const [program = '', ...rest] = words
      return spawn(program, rest, { stdio: ['pipe', 'ignore', 'ignore'], ...options })
    }
    const decoys = names.flatMap((name) => [
      start(say(name)),
      // As an unprivileged user anybody can also start what we start.
      start([...['/bin/sh', '-c', 'read end', '--'], `--root=${roots}/${name}`], { uid: 65_534 }),
    ])
    try {
      await Promise.all(decoys.map((decoy) => once(decoy, 'spawn')))
      const { machines, lost } = await successor(machine)
      assert.deepEqual([machines.map(({ execution }) => execution), lost], [[machine.execution], []])
      assert.deepEqual(
        decoys.filter(({ exitCode, signalCode }) => exitCode !== null || signalCode !== null),
        [],
      )
      assert.equal(await readFile(witness, 'utf8'), 'x')
      await machines[0]?.kill(signal)
    } finally {
      for (const decoy of decoys) decoy.kill('SIGKILL')
      await rm(witness)
    }
    await Promise.all(decoys.map((decoy) => decoy.exitCode ?? decoy.signalCode ?? once(decoy, 'exit')))
    await nothingLeft()
  })

  test('what is no id among the names of directories and control groups is left alone', async () => {
    const strange = ['x', 'not-an-id', '..hidden']
    const cgroups = await CgroupTree.open(join('/icebox', basename(installation.runDirectory)))
    const directories = ['runsc', 'slots', 'machines'].flatMap((kind) =>
      strange.map((name) => join(installation.runDirectory, kind, name)),
    )
    for (const directory of directories) await mkdir(directory)
    await cgroups.make('not-an-id', { memoryBytes: 2 ** 26, cpu: 1, pids: 10, cores: '0' })
    try {
      assert.deepEqual(await successor(), { machines: [], lost: [] })
      for (const directory of directories) assert.ok((await stat(directory)).isDirectory())
      assert.ok((await cgroups.list()).includes('not-an-id'))
    } finally {
      for (const directory of directories) await rm(directory, { recursive: true })
      await cgroups.find('not-an-id').remove()
    }
    await nothingLeft()
  })

  test('a machine that is stopped although nobody stopped it on purpose goes on', async () => {
    const machine = await boot()
    await machine.freeze(signal)
    const { operation: _, ...settled } = await installation.record(machine)
    await writeRecord(runDirectory(machine), settled)
    const { machines } = await successor(machine)
    assert.deepEqual(
      machines.map(({ frozen }) => frozen),
      [false],
    )
    const [same] = machines
    assert.ok(same)
    assert.equal(await say(same, 'echo on', signal), 'on')
    await same.kill(signal)
    await nothingLeft()
  })

  test('what belongs to nobody is removed', async () => {
    const id = newExecutionId()
    const run = installation.runDirectory
    await mkdir(join(installation.dataDirectory, 'bundles', id, 'rootfs'), { recursive: true })
    await mkdir(join(run, 'runsc', id), { recursive: true })
    await mkdir(join(run, 'machines', newExecutionId()), { recursive: true })
    for (const [kind, name] of [
      ['machines', newExecutionId()],
      ['slots', newExecutionId()],
    ] as const) {
      await mkdir(join(run, kind, name), { recursive: true })
      await createNetwork(join(run, kind, name, 'network'))
      await writeFile(join(run, kind, name, 'machine.json'), '{"version":1,"half')
    }
    const cgroups = await CgroupTree.open(join('/icebox', basename(run)))
    await cgroups.make(id, { cpu: 1, memoryBytes: 1 << 26, pids: 10, cores: await cgroups.hostCores() })
    assert.equal((await installation.traces()).length, 8)
    assert.deepEqual(await successor(), { machines: [], lost: [] })
    await nothingLeft()
    assert.deepEqual(await successor(), { machines: [], lost: [] })
  })

  /** Runs a server until it has said so many lines, and some more milliseconds, and kills it. */
  async function killServer(work: string, lines: number, milliseconds: number): Promise<string[]> {
    const { dataDirectory, runDirectory, programs, image } = installation
    const server = spawn(
      process.execPath,
      [
        new URL('victim.ts', import.meta.url).pathname,
        JSON.stringify({ ...programs, dataDirectory, runDirectory, image, spec, work }),
      ],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    const exit = once(server, 'exit')
    const said: string[] = []
    const enough = new Promise<void>((resolve) => {
      createInterface({ input: server.stdout })
        .on('line', (line) => said.push(line) === lines && resolve())
        .on('close', resolve)
    })
    await enough
    await sleep(milliseconds)
    server.kill('SIGKILL')
    const [code] = await exit
    assert.equal(code ?? 0, 0, `the server failed by itself after ${said.join(' ')}`)
    return said
  }

  test('a server can be killed at any step: machines answer afterwards or are gone, and nothing else stays', async () => {
    const bootId = await readBootId()
    // adopt, boot, freeze, save, thaw, restore, kill, boot: early and late in each.
    for (const lines of [1, 2, 3, 4, 5, 6, 7, 8]) {
      for (const milliseconds of [1, 30 + 20 * lines]) {
        const work = lines % 2 ? 'plain' : 'slots'
        const said = await killServer(work, lines, milliseconds)
        if (lines % 3 === 0) await killServer('adopt', 1, milliseconds / 4)
        const { machines, lost } = await installation.restart().adopt(signal)
        const at = `killed ${milliseconds} ms after ${said.join(' ')}`
        assert.deepEqual(lost, [], at)
        for (const machine of machines) {
          assert.equal((await installation.record(machine)).bootId, bootId)
          if (machine.frozen) await machine.thaw(signal)
          await machine.link.release(signal)
          assert.equal(await say(machine, 'echo on', signal), 'on', at)
          await machine.kill(signal)
        }
        assert.deepEqual(await installation.traces(), [], at)
      }
    }
  })

  test('a command that the last server left under way is waited for', async () => {
    const machine = await boot()
    await say(machine, 'head -c 150000000 /dev/zero | tr "\\0" x > /root/big', signal)
    await machine.freeze(signal)
    const directory = join(installation.dataDirectory, 'saved-late')
    await mkdir(directory)
    const saving = machine.save(directory, 'memory', signal).catch(() => {})
    while ((await findProcesses(`--image-path=${directory}`)).length === 0) await sleep(1)
    const { machines } = await successor(machine)
    assert.deepEqual(await findProcesses(`--image-path=${directory}`), [])
    await saving
    const [same] = machines
    assert.ok(same?.frozen)
    await same.thaw(signal)
    await same.link.release(signal)
    assert.equal(await say(same, 'echo on', signal), 'on')
    await same.kill(signal)
    await nothingLeft()
  })

  test('a save whose command is killed leaves a machine that goes on', async () => {
    const machine = await boot()
    await say(machine, 'head -c 150000000 /dev/zero | tr "\\0" x > /root/big', signal)
    let killed = 0
    for (const [index, delay] of [0, 0, 20, 60].entries()) {
      const directory = join(installation.dataDirectory, `saved-killed-${index}`)
      await mkdir(directory)
      await machine.link.quiesce(signal)
      await machine.freeze(signal)
      let done = false
      const saving = machine
        .save(directory, 'memory', signal)
        .catch((thrown: unknown) => {
          assert.ok(isError(thrown, 'Internal'), String(thrown))
          killed++
        })
        .finally(() => {
          done = true
        })
      let found = await findProcesses(`--image-path=${directory}`)
      while (found.length === 0 && !done) found = await findProcesses(`--image-path=${directory}`)
      await sleep(delay)
      for (const { identity } of found) await killProcess(identity)
      await saving
      const { process } = await installation.record(machine)
      assert.ok(process && !(await hasOpen(process, directory)))
      await machine.thaw(signal)
      await machine.link.release(signal)
      assert.equal(await say(machine, 'echo on', signal), 'on')
    }
    assert.ok(killed > 0, 'each save was done before it could be killed')
    await machine.kill(signal)
    await nothingLeft()
  })
})
