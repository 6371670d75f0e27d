import assert from 'node:assert/strict'
import { FreshMachine, type MACHINES } from './machine.ts'

const DEADLINE_MS = 540_000
/** What a development machine has and a fresh one lacks: set-up brings it, or does without. */
const ABSENT = ['cc', 'gcc', 'cargo', 'rustc', 'go', 'git', 'ip', 'setcap', 'mmdebstrap', 'xz']
const LOOK = `for name in ${ABSENT.join(' ')}; do command -v $name || true; done; test ! -e node_modules`

/** Runs the first of the two commands on a fresh machine, to its end. It checks all that it shows. */
export async function assertQuickstart(name: keyof typeof MACHINES, test: AbortSignal): Promise<void> {
  // Before the deadline of a test file, which leaves no time to clean up.
  const signal = AbortSignal.any([test, AbortSignal.timeout(DEADLINE_MS)])
  await using machine = await FreshMachine.install(name, signal)
  assert.equal(await machine.run('sh', ['-euc', LOOK], signal), '')
  const said = await machine.run('npm', ['run', '--silent', 'quickstart'], signal)
  assert.match(said, /^✔ everything shown was checked/m)
}
