import { looks } from './existence.ts'
import { type Finding, precedes, type Span, when } from './finding.ts'
import { effectEnd, type Lineage } from './lineage.ts'
import { type History, ofVerb } from './record.ts'

type Target = 'Running' | 'Paused'
/** Something that brings a sandbox into a state, at some moment of its span. */
interface Change extends Span {
  target: Target
  acknowledged: boolean
  what: string
}

/**
 * A sandbox is in the state that the last change gave it, or one that may still be under way. Every command and file call that
 * was answered saw it running.
 */
export function checkStates(history: History, lineage: Lineage): Finding[] {
  return [...lineage.members.keys()].flatMap((id) => checkSandbox(history, lineage, id))
}

function checkSandbox(history: History, lineage: Lineage, id: string): Finding[] {
  const findings: Finding[] = []
  const changes = changesOf(history, lineage, id)
  const knownAt = lineage.members.get(id)?.knownAt ?? Number.POSITIVE_INFINITY
  const observe = (state: Target, seen: Span, by: string) => {
    const explains = (change: Change) =>
      change.target === state &&
      change.begin <= seen.end &&
      !changes.some(
        (later) => later.target !== state && later.acknowledged && precedes(change, later) && precedes(later, seen),
      )
    if (changes.some(explains)) return
    const against = changes.filter(({ target, acknowledged }) => target !== state && acknowledged)
    const last = against.filter((change) => precedes(change, seen)).at(-1)
    findings.push({
      fault: 'state',
      text: `${id} was ${state} at ${when(seen)} (${by}), although ${last === undefined ? 'nothing had brought it there' : `${last.what} was acknowledged at ${when(last)}`}`,
    })
  }
  for (const look of looks(history))
    for (const seen of look.sandboxes) {
      if (seen.id !== id) continue
      if (seen.state === 'Running' || seen.state === 'Paused') observe(seen.state, look, 'a list')
      else if (seen.state === 'Failed' && knownAt < look.begin)
        findings.push({ fault: 'state', text: `${id} has failed by ${when(look)}` })
    }
  for (const census of ofVerb(history, 'census'))
    for (const { id: each, state } of census.sandboxes)
      if (each === id && state !== 'Running' && state !== 'Paused')
        findings.push({ fault: 'state', text: `${id} is ${state} when all is quiet` })
  for (const verb of ['write', 'read', 'count', 'fork', 'snapshot'] as const)
    for (const operation of ofVerb(history, verb))
      if (operation.sandbox === id && operation.outcome.is === 'ok') observe('Running', operation, `a ${verb}`)
  return findings
}

function changesOf(history: History, lineage: Lineage, id: string): Change[] {
  const member = lineage.members.get(id)
  const asked = [...ofVerb(history, 'pause'), ...ofVerb(history, 'resume')].filter(
    ({ sandbox, outcome }) => sandbox === id && outcome.is !== 'refused',
  )
  const acknowledged = asked.filter(({ outcome }) => outcome.is === 'ok')
  const changes = asked.map((operation): Change => {
    // They exclude each other: the first acknowledged one that began after this had no answer found it ended.
    const after = acknowledged.filter((other) => precedes(operation, other)).map(({ end }) => end)
    return {
      target: operation.op === 'pause' ? 'Paused' : 'Running',
      acknowledged: operation.outcome.is === 'ok',
      begin: operation.begin,
      end: operation.outcome.is === 'ok' ? operation.end : Math.min(...after),
      what: `a ${operation.op}`,
    }
  })
  if (member?.origin !== undefined)
    changes.push({
      target: 'Running',
      acknowledged: false,
      begin: member.origin.begin,
      end: Math.min(effectEnd(member.origin), member.knownAt),
      what: 'its making',
    })
  return changes.toSorted((one, other) => one.end - other.end)
}
