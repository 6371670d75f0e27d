import assert from 'node:assert/strict'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { kernelKills, memoryLimit } from './memory-groups.ts'

/** A directory where files can be put as the kernel has them. */
async function groupsIn(t: TestContext) {
  const mount = await mkdtemp(join(tmpdir(), 'icebox-cgroup-'))
  t.after(() => rm(mount, { recursive: true, force: true }))
  const write = async (path: string, file: string, content: string) => {
    await mkdir(join(mount, path), { recursive: true })
    await writeFile(join(mount, path, file), `${content}\n`)
  }
  return { mount, write }
}

test('the limit of a control group counts, also that of one above it', async (t) => {
  const { mount, write: limit } = await groupsIn(t)
  await limit('box', 'memory.max', '3000')
  await limit('box/inner', 'memory.max', 'max')
  assert.equal(memoryLimit('0::/box/inner\n', mount), 3000)
  assert.equal(memoryLimit('0::/\n', mount), Number.POSITIVE_INFINITY)
  await limit('memory', 'memory.limit_in_bytes', '9223372036854771712')
  await limit('memory/box', 'memory.limit_in_bytes', '2000')
  await limit('memory/box/inner', 'memory.limit_in_bytes', '9223372036854771712')
  const groups = '9:cpu,cpuacct:/elsewhere\n4:memory:/box/inner\n0::/\n'
  assert.equal(memoryLimit(groups, mount), 2000)
  // A group that cannot be seen from in a container, where only its mount can.
  assert.equal(memoryLimit('4:memory:/docker/none\n0::/../..\n\u0000', mount), Number('9223372036854771712'))
})

test('what the kernel killed in a group is counted, in either version of them', async (t) => {
  const { mount, write } = await groupsIn(t)
  await write('box', 'memory.events.local', 'low 0\noom 3\noom_kill 2\noom_group_kill 0')
  await write('memory/box', 'memory.oom_control', 'oom_kill_disable 0\nunder_oom 0\noom_kill 5')
  assert.equal(kernelKills('0::/box\n', mount), 2)
  assert.equal(kernelKills('4:memory:/box\n0::/\n', mount), 5)
  assert.equal(kernelKills('0::/none\n', mount), 0)
})
