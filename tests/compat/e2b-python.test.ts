import { after, before, suite, test } from 'node:test'
import type { ServerProcess } from '../server-process.ts'
import { type CallList, together } from './calls.ts'
import { e2bEnvironment, pythonProgram, startServer } from './compat.ts'
import { checkCompatibility } from './compatibility.ts'
import { E2B_PYTHON } from './e2b-differences.ts'

const SUITE_MS = 560_000

suite('the E2B client for Python', { timeout: SUITE_MS }, () => {
  let server: ServerProcess
  const lists: CallList[] = []
  before(async () => {
    server = await startServer('e2b-python')
  })
  after(() => server?.[Symbol.asyncDispose]())

  for (const half of ['sync', 'async'])
    test(half, async () => {
      lists.push(await pythonProgram(['e2b'], ['e2b_program.py', half], await e2bEnvironment(server)))
    })

  test('nothing that the client exports was forgotten', () =>
    checkCompatibility('PyPI e2b 2.63.0', together(lists), E2B_PYTHON))
})
