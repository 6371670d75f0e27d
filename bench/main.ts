import { parseArgs } from 'node:util'
import { packagesStep, runSteps, stepReport, TEST_REQUIREMENTS } from '@icebox/node'
import { UsageError } from '../packages/cli/src/command.ts'
import { report } from '../packages/cli/src/failure.ts'
import { type Column, paint, print, printJson, table } from '../packages/cli/src/output.ts'
import { closest } from '../packages/cli/src/suggest.ts'
import { FULL } from './effort.ts'
import { Lab } from './lab.ts'
import { machineFacts } from './machine.ts'
import type { Figures, Result } from './measure.ts'
import { SCENARIOS } from './scenarios/index.ts'

/** What the floors are made with. */
const tools = packagesStep(
  'bench packages',
  'what the benchmarks compare Icebox with',
  TEST_REQUIREMENTS.filter(({ package: name }) => ['umoci', 'mount', 'e2fsprogs', 'gcc', 'libc6-dev'].includes(name)),
)

function chosen(words: string[]): typeof SCENARIOS {
  if (words.length === 0) return SCENARIOS
  const names = SCENARIOS.map(({ name }) => name)
  for (const word of words) {
    if (names.includes(word)) continue
    const meant = closest(word, names)
    const hint = meant.length > 0 ? `did you mean ${meant.join(' or ')}?` : `there are ${names.join(', ')}`
    throw new UsageError(`there is no scenario ${word}; ${hint}`)
  }
  return SCENARIOS.filter(({ name }) => words.includes(name))
}

const shown = ({ p50, p95 }: Figures): string =>
  [p50, p95].map((value) => value.toFixed(value < 100 ? 1 : 0).padStart(6)).join(' ')

const COLUMNS: readonly Column<Result>[] = [
  { title: 'scenario', cell: ({ name }) => name.padEnd(24) },
  { title: '', cell: ({ unit }) => unit.padEnd(3) },
  { title: '  p50    p95', cell: ({ ours }) => shown(ours).padEnd(13) },
  { title: 'floor p50 p95', cell: ({ floor }) => shown(floor) },
  { title: 'ratio', cell: ({ ratio }) => ratio.toFixed(2).padStart(5) },
  { title: 'must reach', cell: ({ bound }) => bound.padEnd(30) },
  {
    title: '',
    cell: ({ ok, bound }) => (bound === 'reported' ? '' : ok ? 'pass' : 'FAIL'),
    style: ({ ok }) => (ok ? 'green' : 'red'),
  },
]

async function main(signal: AbortSignal): Promise<number> {
  const { values, positionals } = parseArgs({ options: { json: { type: 'boolean' } }, allowPositionals: true })
  const json = values.json === true
  const scenarios = chosen(positionals)
  await runSteps([tools], json ? () => {} : stepReport(process.stderr), signal)
  const startedAt = new Date().toISOString()
  const results: Result[] = []
  const lab = await Lab.open(signal)
  try {
    for (const scenario of scenarios) {
      if (!json) print(`${paint('bold', scenario.name)}: ${scenario.summary}`)
      const rows = await scenario.run(lab, FULL, signal)
      results.push(...rows)
      if (json) continue
      print(table(rows, COLUMNS))
      for (const note of new Set(rows.flatMap(({ notes }) => notes))) print(paint('dim', `  ${note}`))
      print('')
    }
  } finally {
    await lab.close()
  }
  const missed = results.filter(({ ok }) => !ok)
  if (json) printJson({ machine: await machineFacts(), startedAt, scenarios: results })
  else if (missed.length > 0) print(`${missed.length} of ${results.length} missed what they must reach`)
  return missed.length > 0 ? 1 : 0
}

const interrupted = new AbortController()
// A second one ends the process at once, with what it has started.
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
  process.once(name, () => interrupted.abort(new Error(`interrupted by ${name}`)))
try {
  process.exitCode = await main(interrupted.signal)
} catch (thrown) {
  const why: unknown = interrupted.signal.aborted ? interrupted.signal.reason : thrown
  if (why instanceof UsageError) report(why, process.argv.includes('--json'))
  else console.error(`bench: ${why instanceof Error ? why.message : why}`)
  process.exitCode = why instanceof UsageError ? 2 : 1
}
