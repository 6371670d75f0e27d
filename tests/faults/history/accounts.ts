import type { Finding } from './finding.ts'
import type { Lineage } from './lineage.ts'
import { type History, type OperationOf, ofVerb } from './record.ts'

/** What the events and the usage records say of each sandbox is what became of it. */
export const checkAccounts = (history: History, lineage: Lineage): Finding[] =>
  ofVerb(history, 'census').flatMap((census) => [...checkEvents(census), ...checkUsage(history, lineage, census)])

export function checkEvents({ sandboxes, events }: OperationOf<'census'>): Finding[] {
  if (events === undefined) return []
  const findings: Finding[] = []
  const states = new Map(sandboxes.map(({ id, state }) => [id, state.toLowerCase()]))
  for (const id of new Set([...states.keys(), ...Object.keys(events)])) {
    const [state, told] = [states.get(id) ?? 'deleted', events[id] ?? 'nothing']
    if (state !== told)
      findings.push({ fault: 'account', text: `${id} is ${state}, and the last event of it tells ${told}` })
  }
  return findings
}

function checkUsage(
  history: History,
  { members }: Lineage,
  { begin, sandboxes, usage }: OperationOf<'census'>,
): Finding[] {
  if (usage === undefined) return []
  const findings: Finding[] = []
  const deleted = ofVerb(history, 'delete').filter(({ outcome, end }) => outcome.is === 'ok' && end < begin)
  const records = Map.groupBy(usage, ({ sandbox }) => sandbox)
  for (const [id, { length }] of records) {
    if (length > 1) findings.push({ fault: 'account', text: `what ${id} has used is recorded ${length} times` })
    if (sandboxes.some((seen) => seen.id === id))
      findings.push({ fault: 'account', text: `what ${id} has used is recorded, and it is there` })
  }
  for (const { sandbox, end } of deleted) {
    const begun = members.get(sandbox)?.origin?.begin
    const seconds = records.get(sandbox)?.[0]?.runningSeconds
    // One that was never seen whole may have been deleted before it ran.
    if (begun === undefined || members.get(sandbox)?.knownAt === Number.POSITIVE_INFINITY) continue
    if (seconds === undefined)
      findings.push({ fault: 'account', text: `what ${sandbox} has used, which was deleted, is not recorded` })
    else if (seconds > (end - begun) / 1000 + CLOCK_SECONDS)
      findings.push({
        fault: 'account',
        text: `${sandbox} is said to have run for ${seconds} s, and was there for ${((end - begun) / 1000).toFixed(1)} s`,
      })
  }
  return findings
}

/** By how much the server's clock and that of the history may part. */
const CLOCK_SECONDS = 1
