import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, copyFile, mkdir, mkdtemp, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { newExecutionId } from '@icebox/model'
import { CgroupTree } from '../../cgroup/cgroup.ts'
import { adoptMachines } from './adopt.ts'
import { Agents } from './agent.ts'
import { destroyContainer } from './container.ts'
import type { Host } from './host.ts'
import { processesByContainer } from './own.ts'
import { identify } from './process.ts'

describe('what counts as ours', () => {
  let directory: string
  let host: Host
  const children: ChildProcess[] = []
  const signal = AbortSignal.timeout(60_000)

  /** `sh` stands in for runsc: what it is does not matter, only which file runs, as whom, with which arguments. */
  const build = async (name: string) => {
    await mkdir(join(directory, 'cache', name), { recursive: true })
    const file = join(directory, 'cache', name, 'runsc')
    await copyFile('/bin/sh', file)
    await chmod(file, 0o755)
    return file
  }

  before(async () => {
    // Not below TMPDIR, which may be the owner's alone: others start programs in it.
    directory = await mkdtemp('/var/tmp/icebox-own-')
    await chmod(directory, 0o755)
    const path = (name: string) => join(directory, name)
    for (const name of ['data/bundles', 'run/runsc', 'run/machines', 'run/slots', 'cache'])
      await mkdir(path(name), { recursive: true })
    host = {
      runsc: await build('runsc-2'),
      cgroups: await CgroupTree.open(`/icebox/own-test-${process.pid}`),
      agents: new Agents(path('data/agents'), '/bin/true'),
      bundles: path('data/bundles'),
      roots: path('run/runsc'),
      machines: path('run/machines'),
      slots: path('run/slots'),
      imagePath: path,
      direct: false,
      facts: { name: 'gvisor', version: '1', digest: '', flags: [], cpuFeatures: [] },
      bootId: 'this',
    }
  })
  after(async () => {
    for (const child of children) child.kill('SIGKILL')
    await rm(directory, { recursive: true, force: true })
  })

  const start = async (program: string, root: string, options: { uid?: number; name?: string } = {}) => {
    const { name, ...rest } = options
    const child = spawn(program, ['-c', 'echo up; read end', `--root=${root}`], {
      stdio: ['pipe', 'pipe', 'inherit'],
      ...(name === undefined ? {} : { argv0: name }),
      ...rest,
    })
    children.push(child)
    await once(child.stdout ?? child, 'data')
    return child
  }
  const lives = async (child: ChildProcess) => child.pid !== undefined && (await identify(child.pid)) !== undefined

  test('a process that only says so in its arguments ends nothing and is let live', async () => {
    const id = newExecutionId()
    const program = host.runsc
    const foreign = await Promise.all([
      start('/bin/sh', join(host.roots, '..', '..', 'data', 'bundles')),
      start('/bin/sh', `${host.roots}/..`),
      start('/bin/sh', `${host.roots}/${id}`, { name: 'runsc' }),
      start(program, `${host.roots}/..`),
      start(program, `${host.roots}/../..`),
      start(program, `${host.roots}/${id}/..`),
      start(program, `${host.roots}/${id}`, { uid: 65_534 }),
    ])
    assert.deepEqual([...(await processesByContainer(host)).keys()], [])
    assert.deepEqual(await adoptMachines(host, signal), { adopted: [], lost: [] })
    for (const child of foreign) assert.ok(await lives(child), child.spawnargs.join(' '))
    for (const place of [host.bundles, host.roots, host.machines]) assert.ok((await stat(place)).isDirectory())
  })

  test('a command of root is ours, of this build, of an earlier one, and of one whose file is gone', async () => {
    const [earlier, gone] = [await build('runsc-1'), await build('runsc-0')]
    const ids = [newExecutionId(), newExecutionId(), newExecutionId()] as const
    const commands = [
      await start(host.runsc, join(host.roots, ids[0])),
      await start(earlier, join(host.roots, ids[1])),
      await start(gone, join(host.roots, ids[2])),
    ]
    await rm(join(directory, 'cache', 'runsc-0'), { recursive: true })
    assert.deepEqual([...(await processesByContainer(host)).keys()].sort(), [...ids].sort())
    const ended = Promise.all(commands.map((child) => once(child, 'exit')))
    await adoptMachines(host, signal)
    await ended
  })

  test('a removed program elsewhere is not ours, whatever its name', async () => {
    const elsewhere = join(directory, 'runsc')
    await copyFile('/bin/sh', elsewhere)
    await chmod(elsewhere, 0o755)
    const child = await start(elsewhere, join(host.roots, newExecutionId()))
    await rm(elsewhere)
    assert.deepEqual([...(await processesByContainer(host)).keys()], [])
    assert.ok(await lives(child))
  })

  test('names in our directories that are no ids are left alone', async () => {
    const strange = [
      join(host.machines, 'lost+found'),
      join(host.slots, '...'),
      join(host.roots, 'other'),
      join(host.bundles, '-rf'),
    ]
    for (const path of strange) await mkdir(path)
    await adoptMachines(host, signal)
    for (const path of strange) {
      assert.ok((await stat(path)).isDirectory())
      await rm(path, { recursive: true })
    }
  })

  test('what is no id is never destroyed', async () => {
    for (const name of ['..', '.', '', '../data', 'a/b'])
      await assert.rejects(destroyContainer(host, name), { code: 'Internal' })
    assert.ok((await stat(host.bundles)).isDirectory())
  })
})
