import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { test } from 'node:test'
import { promisify } from 'node:util'
import { heapBytes } from './node-flags.ts'

const GIB = 1024 ** 3

test('the heap is a quarter of the memory, 1 to 8 GiB, and never more than half of it', () => {
  assert.deepEqual(
    [0.5, 1, 2, 4, 8, 16, 32, 512].map((memory) => heapBytes(memory * GIB) / GIB),
    [0.25, 0.5, 1, 1, 2, 4, 8, 8],
  )
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
