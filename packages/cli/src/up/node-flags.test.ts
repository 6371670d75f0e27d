import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { groupLimit, heapBytes } from './node-flags.ts'

const GIB = 1024 ** 3

test('the heap is a quarter of the memory, 1 to 8 GiB, and never more than half of it', () => {
  assert.deepEqual(
    [0.5, 1, 2, 4, 8, 16, 32, 512].map((memory) => heapBytes(memory * GIB) / GIB),
    [0.25, 0.5, 1, 1, 2, 4, 8, 8],
  )
})

test('the limit of a control group counts, also that of one above it', async (t) => {
  const mount = await mkdtemp(join(tmpdir(), 'icebox-cgroup-'))
  t.after(() => rm(mount, { recursive: true, force: true }))
  const limit = async (path: string, file: string, content: string) => {
    await mkdir(join(mount, path), { recursive: true })
    await writeFile(join(mount, path, file), `${content}\n`)
  }
  await limit('box', 'memory.max', '3000')
  await limit('box/inner', 'memory.max', 'max')
  assert.equal(groupLimit('0::/box/inner\n', mount), 3000)
  assert.equal(groupLimit('0::/\n', mount), Number.POSITIVE_INFINITY)
  await limit('memory', 'memory.limit_in_bytes', '9223372036854771712')
  await limit('memory/box', 'memory.limit_in_bytes', '2000')
  await limit('memory/box/inner', 'memory.limit_in_bytes', '9223372036854771712')
  const groups = '9:cpu,cpuacct:/elsewhere\n4:memory:/box/inner\n0::/\n'
  assert.equal(groupLimit(groups, mount), 2000)
  // A group that cannot be seen from in a container, where only its mount can.
  assert.equal(groupLimit('4:memory:/docker/none\n0::/../..\n\u0000', mount), Number('9223372036854771712'))
})

test('a process becomes itself anew with the flags, unless somebody has chosen a heap', async () => {
  const url = new URL('./node-flags.ts', import.meta.url).href
  const script = `import { requireNodeFlags } from ${JSON.stringify(url)}
    requireNodeFlags()
    process.stdout.write(JSON.stringify({ pid: process.pid, flags: process.execArgv }))`
  const flagsWith = async (env: Record<string, string>, ...flags: string[]): Promise<string[]> => {
    const running = promisify(execFile)(process.execPath, [...flags, '--input-type=module', '-e', script], {
      env: { ...process.env, ...env },
    })
    const said: { pid: number; flags: string[] } = JSON.parse((await running).stdout)
    assert.equal(said.pid, running.child.pid)
    return said.flags.filter((flag) => flag.startsWith('--report') || flag.startsWith('--max'))
  }
  assert.match((await flagsWith({})).join(' '), /^--report-exclude-env --max-old-space-size=\d+$/)
  assert.deepEqual(await flagsWith({ NODE_OPTIONS: '--max_old_space_size=300' }), ['--report-exclude-env'])
  // Of two the last one holds.
  assert.equal((await flagsWith({}, '--max-old-space-size=300')).at(-1), '--max-old-space-size=300')
})
