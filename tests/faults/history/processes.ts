import { type Finding, precedes, when } from './finding.ts'
import type { Lineage } from './lineage.ts'
import { type History, ofVerb } from './record.ts'

/**
 * The process that counts in every sandbox is that of the template, carried on through every snapshot, pause and fork: one name
 * in the whole history, and in each sandbox a count that never goes back, not even behind what the source had shown before the cut.
 */
export function checkProcesses(history: History, lineage: Lineage): Finding[] {
  const findings: Finding[] = []
  const counts = ofVerb(history, 'count').flatMap(({ sandbox, begin, end, outcome }) =>
    outcome.is === 'ok' ? [{ sandbox, begin, end, ...outcome }] : [],
  )
  const bySandbox = Map.groupBy(counts, ({ sandbox }) => sandbox)
  const [first] = counts.toSorted((one, other) => one.begin - other.begin)
  for (const count of counts)
    if (first !== undefined && count.process !== first.process)
      findings.push({
        fault: 'process',
        text: `the process in ${count.sandbox} at ${when(count)} is ${count.process} and not ${first.process}, with which it began`,
      })

  /** The highest count shown before a moment, by the sandbox or by what it was made from. */
  const floorOf = (sandbox: string, begin: number): number => {
    const own = (bySandbox.get(sandbox) ?? []).filter((count) => precedes(count, { begin, end: begin }))
    const cut = lineage.members.get(sandbox)?.cut
    const inherited = cut === undefined ? 0 : floorOf(cut.source, cut.begin)
    return Math.max(inherited, ...own.map(({ count }) => count))
  }
  for (const count of counts) {
    const floor = floorOf(count.sandbox, count.begin)
    if (count.count < floor)
      findings.push({
        fault: 'process',
        text: `the process in ${count.sandbox} counted ${count.count} at ${when(count)}, although it had shown ${floor} before`,
      })
  }
  return findings
}
