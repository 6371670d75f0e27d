import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, realpath, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { ensureRuntime, stepReport } from '@icebox/node'
import { runDirectoryOf } from '@icebox/snapshot'
import { recordCrowd } from '../crowd.ts'
import { type Bound, result } from '../measure.ts'
import type { Scenario } from '../scenario.ts'

const MAIN = join(import.meta.dirname, '../../packages/cli/src/main.ts')
const FEW = 10
const LOOK_MS = 5

const within = (seconds: number): Bound => ({
  text: `≤ ${seconds} s`,
  holds: (ours) => ours.p50 <= seconds * 1000,
})

/** Resolves once it answers requests. */
async function answering(data: string, child: ChildProcess, signal: AbortSignal): Promise<void> {
  for (;;) {
    signal.throwIfAborted()
    if (child.exitCode !== null) throw new Error(`the server ended with status ${child.exitCode}`)
    const { pid, url } = JSON.parse(await readFile(join(data, 'server.json'), 'utf8').catch(() => '{}'))
    if (
      pid === child.pid &&
      (await fetch(`${url}/health`).then(
        ({ ok }) => ok,
        () => false,
      ))
    )
      return
    await sleep(LOOK_MS, undefined, { signal })
  }
}

/** MiB that the process has had at most. */
async function peakMemory(pid: number | undefined): Promise<number> {
  const kib = /VmHWM:\s+(\d+)/.exec(await readFile(`/proc/${pid}/status`, 'utf8'))?.[1]
  return Number(kib) / 1024
}

/** Milliseconds from the start of the program until it answers, and the memory it took. */
async function startOnce(data: string, signal: AbortSignal): Promise<{ ms: number; mib: number }> {
  const started = performance.now()
  const child = spawn(process.execPath, [MAIN, 'up', '--no-base', '--listen', '127.0.0.1:0', '--data', data], {
    stdio: 'ignore',
  })
  const ended = once(child, 'exit')
  try {
    await answering(data, child, signal)
    const ms = performance.now() - started
    return { ms, mib: await peakMemory(child.pid) }
  } finally {
    child.kill('SIGTERM')
    await ended
  }
}

export const start: Scenario = {
  name: 'start',
  summary: '`icebox up` until it answers, with thousands of records; floor: with ten',
  async run(lab, effort, signal) {
    await ensureRuntime(stepReport(process.stderr), signal)
    const measure = async (records: number) => {
      const data = await realpath(await mkdtemp(join(lab.directory, 'start-')))
      try {
        await recordCrowd(data, records / 2, signal)
        const starts: { ms: number; mib: number }[] = []
        for (let round = 0; round < effort.rounds.long; round++) starts.push(await startOnce(data, signal))
        return starts
      } finally {
        await rm(data, { recursive: true })
        await rm(runDirectoryOf(data), { recursive: true, force: true })
      }
    }
    const floor = await measure(FEW)
    const rows = []
    for (const { records, seconds } of effort.starts) {
      const ours = await measure(records)
      const memory = Math.round(Math.max(...ours.map(({ mib }) => mib)))
      const times = { ours: ours.map(({ ms }) => ms), floor: floor.map(({ ms }) => ms) }
      rows.push(result(`start, ${records} records`, 'ms', times, within(seconds), [`${memory} MiB at most`]))
    }
    return rows
  },
}
