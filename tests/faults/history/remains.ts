import type { Finding } from './finding.ts'
import { type History, type OperationOf, ofVerb } from './record.ts'

/** When all is quiet the machine holds what the sandboxes and snapshots need, once, and nothing else. */
export const checkRemains = (history: History): Finding[] => ofVerb(history, 'census').flatMap(checkCensus)

function checkCensus({ sandboxes, snapshots, node }: OperationOf<'census'>): Finding[] {
  const findings: Finding[] = []
  const running = sandboxes.filter(({ state }) => state === 'Running')
  const slots = new Set(node.slots)
  const everywhere = new Set(Object.values(node.containers).flat())
  for (const slot of slots) everywhere.delete(slot)
  for (const [kind, ids] of Object.entries(node.containers)) {
    const taken = ids.filter((id) => !slots.has(id))
    if (new Set(taken).size < taken.length) findings.push({ fault: 'doubled', text: `one container has two ${kind}` })
    const missing = [...everywhere].filter((id) => !taken.includes(id))
    if (missing.length > 0)
      findings.push({ fault: 'orphan', text: `there is something of ${missing.join(', ')}, but no ${kind}` })
  }
  if (everywhere.size > running.length)
    findings.push({
      fault: 'orphan',
      text: `${everywhere.size} containers are there for ${running.length} running sandboxes: ${[...everywhere].join(', ')}`,
    })
  if (everywhere.size < running.length)
    findings.push({
      fault: 'lost',
      text: `only ${everywhere.size} containers are there for ${running.length} running sandboxes`,
    })

  const pausedIn = new Set(sandboxes.map((sandbox) => sandbox.pausedIn))
  for (const { id, hidden, template } of snapshots) {
    if (hidden && template === undefined && !pausedIn.has(id))
      findings.push({ fault: 'orphan', text: `the hidden snapshot ${id} is of no template and holds no sandbox` })
    if (!node.snapshots.includes(id)) findings.push({ fault: 'lost', text: `the snapshot ${id} has no files` })
  }
  const ready = new Set(snapshots.map(({ id }) => id))
  for (const id of node.snapshots)
    if (!ready.has(id))
      findings.push({ fault: 'orphan', text: `there are files of a snapshot ${id} that nobody knows` })
  for (const { id, state, pausedIn: snapshot } of sandboxes)
    if (state === 'Paused' && (snapshot === undefined || !ready.has(snapshot)))
      findings.push({ fault: 'lost', text: `${id} is paused in the snapshot ${snapshot}, which is not there` })
  for (const path of node.temporary) findings.push({ fault: 'orphan', text: `${path} is left` })
  return findings
}
