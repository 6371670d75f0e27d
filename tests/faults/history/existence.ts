import { type Finding, precedes, type Span, when } from './finding.ts'
import { type Lineage, looks } from './lineage.ts'
import { type History, type Operation, ofVerb } from './record.ts'

/** What was made is there until its delete was asked for, what was deleted is gone, and nothing is there that nobody asked for. */
export function checkExistence(history: History, lineage: Lineage): Finding[] {
  return [
    ...[...lineage.members.keys()].flatMap((id) => checkSandbox(history, lineage, id)),
    ...checkNumbers(history, lineage),
    ...checkSnapshots(history),
  ]
}

function checkSandbox(history: History, lineage: Lineage, id: string): Finding[] {
  const findings: Finding[] = []
  const member = lineage.members.get(id)
  const madeBy = member?.knownAt ?? Number.POSITIVE_INFINITY
  const deletes = ofVerb(history, 'delete').filter(({ sandbox }) => sandbox === id)
  const deleteBegan = Math.min(...deletes.map(({ begin }) => begin))
  const mustBeThere = ({ begin, end }: Span) => madeBy < begin && end < deleteBegan

  const sightings: Span[] = []
  const absences: Span[] = deletes.filter(({ outcome }) => outcome.is === 'ok')
  for (const look of looks(history)) {
    const entries = look.sandboxes.filter((seen) => seen.id === id).length
    if (entries > 1) findings.push({ fault: 'doubled', text: `${id} is in the list of ${when(look)} ${entries} times` })
    if (entries > 0) sightings.push(look)
    // Before it was made it is not there either.
    else if (madeBy < look.begin) absences.push(look)
    if (entries === 0 && mustBeThere(look))
      findings.push({
        fault: 'lost',
        text: `${id}, made by ${when({ begin: madeBy, end: Infinity })}, is not in the list of ${when(look)}, and nobody had deleted it`,
      })
  }
  for (const operation of history) {
    if (!('sandbox' in operation) || operation.sandbox !== id || operation.op === 'delete') continue
    if (operation.outcome.is === 'ok') sightings.push(operation)
    else if (operation.outcome.code === 'NotFound' && isAboutSandbox(operation)) {
      absences.push(operation)
      if (mustBeThere(operation))
        findings.push({
          fault: 'lost',
          text: `a ${operation.op} of ${id} found nothing at ${when(operation)}, and nobody had deleted it`,
        })
    }
  }
  for (const operation of ofVerb(history, 'create'))
    if (operation.outcome.is === 'ok' && operation.outcome.sandbox === id) sightings.push(operation)
  const gone = absences.toSorted((one, other) => one.end - other.end)[0]
  const back = gone && sightings.find((sighting) => precedes(gone, sighting))
  if (gone !== undefined && back !== undefined && Number.isFinite(deleteBegan))
    findings.push({
      fault: 'orphan',
      text: `${id} was gone at ${when(gone)} and there again at ${when(back)}`,
    })
  return findings
}

/** A NotFound of a file call may be about the file. */
const isAboutSandbox = ({ op }: Operation): boolean =>
  ['pause', 'resume', 'fork', 'snapshot', 'renew', 'expire'].includes(op)

/** A create makes one sandbox and a fork as many as asked, whatever was answered; an error that says so leaves none. */
function checkNumbers(history: History, lineage: Lineage): Finding[] {
  const findings: Finding[] = []
  const members = [...lineage.members.values()]
  for (const { id } of members.filter(({ origin }) => origin === undefined))
    findings.push({ fault: 'orphan', text: `${id} is there, and nobody asked for it` })
  for (const [key, attempts] of Map.groupBy(ofVerb(history, 'create'), (create) => create.key)) {
    const told = new Set(attempts.flatMap(({ outcome }) => (outcome.is === 'ok' ? [outcome.sandbox] : [])))
    if (told.size > 1)
      findings.push({ fault: 'doubled', text: `the create ${key} was sent again and told of ${[...told].join(', ')}` })
  }
  const made = Map.groupBy(members, ({ origin }) => origin)
  for (const [origin, group] of made) {
    if (origin === undefined) continue
    const most = origin.op === 'fork' ? origin.count : 1
    const ids = group.map(({ id }) => id).join(', ')
    if (group.length > most)
      findings.push({
        fault: 'doubled',
        text: `the ${origin.op} ${origin.key} asked for ${most} and made ${group.length}: ${ids}`,
      })
    if (origin.outcome.is === 'unknown') continue
    const told =
      'sandbox' in origin.outcome
        ? [origin.outcome.sandbox]
        : 'children' in origin.outcome
          ? origin.outcome.children
          : []
    for (const census of ofVerb(history, 'census'))
      for (const { id, state } of census.sandboxes)
        if (group.some((member) => member.id === id) && !told.includes(id))
          findings.push({
            fault: 'orphan',
            text: `${id} (${state}) is left of the ${origin.op} ${origin.key}, which was answered without it (${origin.outcome.is === 'refused' ? origin.outcome.code : 'ok'})`,
          })
  }
  return findings
}

function checkSnapshots(history: History): Finding[] {
  const findings: Finding[] = []
  const drops = ofVerb(history, 'drop')
  const taken = ofVerb(history, 'snapshot').flatMap(({ end, outcome }) =>
    outcome.is === 'ok' ? [{ id: outcome.snapshot, end }] : [],
  )
  const perhaps = ofVerb(history, 'snapshot').filter(({ outcome }) => outcome.is === 'unknown')
  for (const census of ofVerb(history, 'census')) {
    const there = new Set(census.snapshots.map(({ id }) => id))
    for (const { id, end } of taken) {
      const dropped = drops.filter(({ snapshot }) => snapshot === id)
      if (!there.has(id) && end < census.begin && dropped.every(({ begin }) => begin > census.end))
        findings.push({ fault: 'lost', text: `the snapshot ${id} is gone, and nobody had deleted it` })
      if (there.has(id) && dropped.some(({ outcome, end }) => outcome.is === 'ok' && end < census.begin))
        findings.push({ fault: 'orphan', text: `the snapshot ${id} is there, although it was deleted` })
    }
    const unknown = census.snapshots.filter(({ id, hidden }) => !hidden && taken.every((each) => each.id !== id))
    if (unknown.length > perhaps.length)
      findings.push({
        fault: 'orphan',
        text: `${unknown.length} snapshots are there that nobody was told of (${unknown.map(({ id }) => id).join(', ')}), and only ${perhaps.length} can have been taken unknown`,
      })
  }
  return findings
}
