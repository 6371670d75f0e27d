import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readFile, writeFile } from 'node:fs/promises'
import { totalmem } from 'node:os'
import { after, before, describe, test } from 'node:test'
import { memoryCeiling, sandboxCeiling } from './ceiling.ts'
import { CgroupTree, parseCores } from './cgroup.ts'
import { layoutOf } from './layout.ts'
import { cgroupMounts } from './mounts.ts'

const MIB = 1 << 20

test('the cores of a list', () => {
  assert.deepEqual(parseCores('0-3,5\n'), [0, 1, 2, 3, 5])
  assert.deepEqual(parseCores('7'), [7])
  assert.deepEqual(parseCores(''), [])
})

test('the host keeps an eighth of its memory, 1 to 8 GiB, at most half', () => {
  const gib = (count: number) => count * 2 ** 30
  assert.equal(memoryCeiling(gib(1)), gib(0.5))
  assert.equal(memoryCeiling(gib(4)), gib(3))
  assert.equal(memoryCeiling(gib(32)), gib(28))
  assert.equal(memoryCeiling(gib(512)), gib(504))
})

describe('control groups of this host', () => {
  const parent = `/icebox/test-${randomBytes(6).toString('hex')}`
  let tree: CgroupTree
  let limits: { cpu: number; memoryBytes: number; pids: number; cores: string }
  const children: ChildProcess[] = []

  before(async () => {
    tree = await CgroupTree.open(parent)
    limits = { cpu: 0.5, memoryBytes: 64 * MIB, pids: 20, cores: await tree.hostCores() }
  })
  after(async () => {
    for (const child of children) child.kill('SIGKILL')
    for (const name of await tree.list()) await tree.find(name).remove()
    await tree.removeParent()
  })

  /** A shell in the group that runs the script once it is told to. */
  async function inside(path: string, script: string): Promise<ChildProcess> {
    const layout = layoutOf(await cgroupMounts())
    const child = spawn('/bin/sh', ['-c', `read go; ${script}`], { stdio: ['pipe', 'ignore', 'ignore'] })
    children.push(child)
    for (const directory of layout.directories(path)) await writeFile(`${directory}/cgroup.procs`, String(child.pid))
    child.stdin?.end('go\n')
    return child
  }

  test('have a limit together, which leaves the host a part', async () => {
    const group = await tree.make('together', limits)
    const layout = layoutOf(await cgroupMounts())
    const most = await sandboxCeiling()
    assert.ok(most.memoryBytes < totalmem())
    for (const { file, value } of layout.ceiling('/icebox', most)) {
      const set = Number(await readFile(file, 'utf8'))
      // Memory in whole pages.
      assert.ok(set <= Number(value) && set > Number(value) - 65_536, `${file}: ${set}, not ${value}`)
    }
    await group.remove()
  })

  test('are made with their limits, listed and removed with what runs in them', async () => {
    assert.deepEqual(await tree.list(), [])
    const group = await tree.make('one', limits)
    assert.equal(group.path, `${parent}/one`)
    assert.deepEqual(await tree.list(), ['one'])
    const child = await inside(group.path, 'while :; do :; done')
    while (((await group.usage()).cpuSeconds || 0) < 0.02) await new Promise((resolve) => setTimeout(resolve, 5))
    assert.deepEqual(await group.processes(), [child.pid])
    assert.match(await readFile(`/proc/${child.pid}/cgroup`, 'utf8'), new RegExp(`${parent}/one$`, 'm'))
    const exit = once(child, 'exit')
    await group.remove()
    assert.deepEqual(await exit, [null, 'SIGKILL'])
    assert.deepEqual(await tree.list(), [])
    await group.remove()
    assert.deepEqual(await group.processes(), [])
    assert.equal(await group.oomKills(), 0)
  })

  test('are made anew when the empty parent was tidied away', async () => {
    await tree.removeParent()
    const group = await tree.make('one', limits)
    await group.remove()
  })

  test('count what the kernel killed for want of memory', async () => {
    const group = await tree.make('hungry', limits)
    assert.equal(await group.oomKills(), 0)
    const child = await inside(group.path, 'exec tail /dev/zero')
    await once(child, 'exit')
    assert.ok((await group.oomKills()) > 0)
    await group.remove()
  })

  test('take other limits later', async () => {
    const group = await tree.make('changed', limits)
    await group.limit({ pids: 1 })
    const child = await inside(group.path, '/bin/true & wait $! && exit 3; exit 4')
    const [code] = await once(child, 'exit')
    assert.notEqual(code, 3)
    await group.limit({ memoryBytes: 128 * MIB, cores: limits.cores, cpu: 2 })
    await group.remove()
  })
})
