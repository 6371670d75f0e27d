import { after } from 'node:test'

/**
 * Loaded into every process that runs a test file (`--import`): the runner itself waits for such a process without end. One
 * that is not over in time, or that stays although its tests are done, says what it waits for and fails.
 */
const FILE_DEADLINE_MS = Number(process.env.ICEBOX_TEST_FILE_DEADLINE_MS) || 600_000
const ENDING_DEADLINE_MS = Number(process.env.ICEBOX_TEST_ENDING_DEADLINE_MS) || 30_000

function endAfter(milliseconds: number, what: string): void {
  setTimeout(() => {
    const open = process.getActiveResourcesInfo().join(', ')
    process.stderr.write(`${process.argv[1]}: ${what} ${milliseconds / 1000} s; it waits for: ${open}\n`)
    process.exit(1)
  }, milliseconds).unref()
}

// The runner loads this too, and waits as long as it must.
if (process.env.NODE_TEST_CONTEXT !== undefined) {
  endAfter(FILE_DEADLINE_MS, 'not done after')
  after(() => endAfter(ENDING_DEADLINE_MS, 'all tests are done, but the process is still there after'))
}
