import { type Finding, precedes, type Span, when } from './finding.ts'
import { effectEnd, type Lineage, looks } from './lineage.ts'
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
  const uses = (['write', 'read', 'count', 'fork', 'snapshot'] as const).flatMap((verb) =>
    ofVerb(history, verb).filter(({ sandbox, outcome }) => sandbox === id && outcome.is === 'ok'),
  )
  /** What is known to have been so at some moment of its span. */
  const shown: (Span & { target: Target })[] = [
    ...changes.filter(({ acknowledged }) => acknowledged),
    ...uses.map(({ begin, end }) => ({ begin, end, target: 'Running' as const })),
  ]
  const knownAt = lineage.members.get(id)?.knownAt ?? Number.POSITIVE_INFINITY
  const observe = (state: Target, seen: Span, by: string) => {
    const explains = (change: Change) =>
      change.target === state &&
      change.begin <= seen.end &&
      !shown.some((later) => later.target !== state && precedes(change, later) && precedes(later, seen))
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
  for (const use of uses) observe('Running', use, `a ${use.op}`)
  return findings
}

function changesOf(history: History, lineage: Lineage, id: string): Change[] {
  const member = lineage.members.get(id)
  const isOfIt = ({ sandbox }: { sandbox: string }) => sandbox === id
  const isMine = ({ sandbox, outcome }: { sandbox: string; outcome: { is: string } }) =>
    sandbox === id && outcome.is !== 'refused'
  const asked = [...ofVerb(history, 'pause'), ...ofVerb(history, 'resume')].filter(isMine)
  // One that was refused may have resumed it, and then found it on its way out.
  const uses = [...ofVerb(history, 'write'), ...ofVerb(history, 'read'), ...ofVerb(history, 'count')].filter(isOfIt)
  const acknowledged = asked.filter(({ outcome }) => outcome.is === 'ok')
  const changes = [...asked, ...(member?.wakes === true ? uses : [])].map((operation): Change => {
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
  const times = [...ofVerb(history, 'renew'), ...ofVerb(history, 'expire')].filter(isMine)
  const ends = [...ofVerb(history, 'pause').filter(isMine), ...times].filter(({ outcome }) => outcome.is === 'ok')
  for (const expire of ofVerb(history, 'expire').filter(isMine)) {
    // It has another time from then on, or none while it is paused and a new one when it is resumed.
    const after = ends.filter((other) => expire.outcome.is === 'ok' && precedes(expire, other)).map(({ end }) => end)
    changes.push({
      target: 'Paused',
      acknowledged: false,
      begin: expire.begin + expire.after,
      end: Math.min(...after),
      what: 'the end of its time',
    })
  }
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
