import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { cargo, guestBuild } from '@icebox/node'
import { leftBehind, machineState } from './leftovers.ts'
import { linkPromisedPrograms } from './programs.ts'

const ROOT = join(import.meta.dirname, '..')
/** Of one test; setup/watchdog.ts has that of a file. */
const TEST_DEADLINE_MS = 600_000
/** Of all test files together. */
const RUN_DEADLINE_MS = 2_700_000
/** How long what is on its way out after the last test may still be seen. */
const SETTLE_MS = 15_000

export interface Task {
  name: string
  program: string
  args: string[]
  env?: Record<string, string>
}

/** Runs a program on this terminal to its end, which comes by SIGTERM on abort. Gives its exit status; a signal counts as 1. */
export async function run(task: Task, signal: AbortSignal): Promise<number> {
  signal.throwIfAborted()
  const child = spawn(task.program, task.args, { cwd: ROOT, env: { ...process.env, ...task.env }, stdio: 'inherit' })
  const end = () => child.kill('SIGTERM')
  signal.addEventListener('abort', end, { once: true })
  try {
    const [code] = await once(child, 'close')
    return code ?? 1
  } finally {
    signal.removeEventListener('abort', end)
  }
}

const bin = (name: string) => join(ROOT, 'node_modules', '.bin', name)

/** What `npm run check` does: style, dead code and types. */
export const CHECKS: Task[] = [
  { name: 'Biome', program: bin('biome'), args: ['check', '--error-on-warnings', '.'] },
  { name: 'TypeScript', program: bin('tsc'), args: ['-p', '.'] },
]

/** The tests of what is not TypeScript. What they are compiled into stands beside the guest agent in the cache. */
export async function nativeTests(): Promise<Task[]> {
  const objects = `${dirname((await guestBuild()).path)}-tests`
  return [{ name: 'guest agent tests', ...cargo(['test', '--quiet'], objects) }]
}

/** Runs the tasks in order to the first that fails, naming each and saying how long it took. Gives the exit status. */
export async function runTasks(tasks: Task[], signal: AbortSignal): Promise<number> {
  for (const task of tasks) {
    const started = performance.now()
    const status = await run(task, signal)
    const seconds = ((performance.now() - started) / 1000).toFixed(1)
    console.log(
      `${status === 0 ? '✔' : '✘'} ${task.name} ${status === 0 ? 'passed' : `failed (exit status ${status})`} in ${seconds} s`,
    )
    if (status !== 0) return status
  }
  return 0
}

/** The arguments by which Node runs test files, two at a time. */
export const TEST_ARGUMENTS = [
  '--test',
  `--import=${join(import.meta.dirname, 'watchdog.ts')}`,
  '--test-concurrency=2',
  `--test-timeout=${TEST_DEADLINE_MS}`,
  '--test-reporter=spec',
]

/**
 * Runs the tests of the patterns in a scratch directory of their own. Fails too when the run leaves something behind on the
 * machine. When all is well, the runner's own summary is the last thing printed.
 */
export async function runTests(patterns: string[], signal: AbortSignal): Promise<number> {
  const scratch = await mkdtemp(join(tmpdir(), 'icebox-test-'))
  const programs = await mkdtemp(join(tmpdir(), 'icebox-test-programs-'))
  try {
    await linkPromisedPrograms(programs, signal)
    const before = await machineState(scratch)
    const deadline = AbortSignal.timeout(RUN_DEADLINE_MS)
    const status = await run(
      {
        name: 'tests',
        program: process.execPath,
        args: [...TEST_ARGUMENTS, ...patterns],
        // npm would keep compiled code in the scratch directory.
        env: { TMPDIR: scratch, NODE_DISABLE_COMPILE_CACHE: '1', PATH: programs },
      },
      AbortSignal.any([signal, deadline]),
    )
    if (deadline.aborted) console.log(`✘ the tests were ended after ${RUN_DEADLINE_MS / 60_000} minutes`)
    const left = await leftBehind(before, scratch, SETTLE_MS, signal)
    if (left.length === 0) return status
    console.log(`✘ the tests left ${left.length} things behind (or another Icebox started them meanwhile):`)
    for (const line of left) console.log(`    ${line}`)
    return status || 1
  } finally {
    await rm(programs, { recursive: true, force: true })
    // Never through a mount that was left in it.
    const mounts = await readFile('/proc/self/mountinfo', 'utf8')
    if (!mounts.includes(` ${scratch}/`)) await rm(scratch, { recursive: true, force: true })
  }
}
