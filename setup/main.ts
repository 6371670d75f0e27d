import { join } from 'node:path'
import { isError } from '@icebox/model'
import {
  baseImageStep,
  packagesStep,
  runSteps,
  runtimeSteps,
  rustStep,
  stepReport,
  TEST_REQUIREMENTS,
} from '@icebox/node'
import { clientSteps } from './clients.ts'
import { CHECKS, nativeTests, run, runTasks, runTests } from './tests.ts'

const ROOT = join(import.meta.dirname, '..')
const ALL_TESTS = ['packages/*/src/**/*.test.ts', 'tests/**/*.test.ts', 'bench/**/*.test.ts']
const USAGE = `usage: npm run quickstart            set up, then the whole story with its times
       npm test [-- FILE...]         set up, then checks and all tests (or these test files alone)
       npm run check                 style and types only
       npm run bench [-- SCENARIO]   set up, then the benchmarks`

const interrupted = new AbortController()
for (const name of ['SIGINT', 'SIGTERM'] as const)
  process.once(name, () => interrupted.abort(new Error(`interrupted by ${name}`)))
const signal = interrupted.signal

const report = stepReport(process.stdout)
const setUp = (...steps: Parameters<typeof runSteps>[0]) => runSteps(steps, report, signal)
const testPackages = packagesStep('test packages', 'what the tests compare Icebox with', TEST_REQUIREMENTS)

/** Runs one of our own programs on this terminal. */
const program = (file: string, args: string[]) =>
  run({ name: file, program: process.execPath, args: [join(ROOT, file), ...args] }, signal)

const commands: Record<string, (args: string[]) => Promise<number>> = {
  async quickstart(args) {
    await setUp(...runtimeSteps(), baseImageStep)
    return await program('packages/cli/src/quickstart.ts', args)
  },
  async test(files) {
    await setUp(...runtimeSteps(rustStep), testPackages, baseImageStep, ...clientSteps)
    if (files.length > 0) return await runTests(files, signal)
    return (await runTasks([...CHECKS, ...(await nativeTests())], signal)) || (await runTests(ALL_TESTS, signal))
  },
  check: () => runTasks(CHECKS, signal),
  async bench(args) {
    // What it prints may be JSON.
    await runSteps([...runtimeSteps(), baseImageStep], stepReport(process.stderr), signal)
    return await program('packages/cli/src/main.ts', ['bench', ...args])
  },
}

const [name = '', ...args] = process.argv.slice(2)
const command = Object.hasOwn(commands, name) ? commands[name] : undefined
if (!command) {
  console.error(USAGE)
  process.exitCode = 2
} else
  try {
    process.exitCode = await command(args)
  } catch (failure) {
    // A failed step has already said what to do.
    if (!isError(failure, 'Unavailable')) console.error(failure)
    process.exitCode = 1
  }
