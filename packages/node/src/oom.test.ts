import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { test } from 'node:test'
import { exposeToOom, protectFromOom } from './oom.ts'
import { command } from './setup/command.ts'

const scoreOf = (pid: number | 'self') => Number(readFileSync(`/proc/${pid}/oom_score_adj`, 'utf8'))

/** CAP_SYS_RESOURCE. */
const mayLower = () =>
  (BigInt(`0x${readFileSync('/proc/self/status', 'utf8').split('CapEff:\t')[1]?.slice(0, 16)}`) >> 24n) % 2n === 1n

test('this process is killed late, and what it starts as any other', async (t) => {
  const before = scoreOf('self')
  t.after(() => writeFileSync('/proc/self/oom_score_adj', String(before)))
  // It is lowered where the kernel lets it be, and else left as it is.
  assert.equal(protectFromOom(), mayLower())
  assert.equal(scoreOf('self'), mayLower() ? -900 : before)
  const child = spawn('sleep', ['1000'])
  try {
    exposeToOom(child)
    assert.equal(scoreOf(child.pid ?? 0), before)
  } finally {
    child.kill('SIGKILL')
    await once(child, 'exit')
  }
  const said: string[] = []
  await command(
    'sh',
    ['-c', 'sleep 0.2; cat /proc/self/oom_score_adj'],
    { deadlineMs: 60_000, onLine: (line) => said.push(line) },
    AbortSignal.timeout(60_000),
  )
  assert.deepEqual(said, [String(before)])
})
