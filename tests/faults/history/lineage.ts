import type { Span } from './finding.ts'
import { type History, type OperationOf, ofVerb, type Seen } from './record.ts'

/** A moment of a sandbox from which others were made: a snapshot, or the one save of a fork. */
export interface Cut extends Span {
  source: string
}

/** A sandbox of the history, whether its making was acknowledged or only seen in a list. */
export interface Member {
  id: string
  /** The operation that made it; undefined when nobody asked for it. */
  origin: OperationOf<'create'> | OperationOf<'fork'> | undefined
  /** When the making was acknowledged, or it was first seen whole; Infinity: never. */
  knownAt: number
  /** What it is made from; undefined: the template. */
  cut: Cut | undefined
  /** Whether it is resumed by a use of it. */
  wakes: boolean
}

/** Who came from whom. */
export interface Lineage {
  members: ReadonlyMap<string, Member>
  /** The cuts that were taken of a sandbox, each with what was made of it. */
  cutsOf(sandbox: string): { cut: Cut; children: string[] }[]
}

/** End of an operation as far as its effect goes: an unknown one may still be coming. */
export const effectEnd = (operation: { end: number; outcome: { is: string } }): number =>
  operation.outcome.is === 'ok' ? operation.end : Number.POSITIVE_INFINITY

interface Look extends Span {
  sandboxes: readonly Seen[]
}

/** Every list, also those of a census. */
export const looks = (history: History): Look[] => [
  ...ofVerb(history, 'list').flatMap(({ begin, end, outcome }) =>
    outcome.is === 'ok' ? [{ begin, end, sandboxes: outcome.sandboxes }] : [],
  ),
  ...ofVerb(history, 'census'),
]

/** One request of all the times that it was sent: acknowledged when one of them was, refused when all were. */
function requestOf(attempts: OperationOf<'create'>[]): OperationOf<'create'> {
  const acknowledged = attempts
    .filter(({ outcome }) => outcome.is === 'ok')
    .toSorted((one, other) => one.end - other.end)
  const [first] = [...acknowledged, ...attempts.filter(({ outcome }) => outcome.is === 'unknown'), ...attempts]
  if (first === undefined) throw new Error('a request is sent once at least')
  if (attempts.some(({ from, wakes }) => from !== first.from || wakes !== first.wakes))
    throw new Error(`the key ${first.key} was used for another request`)
  return { ...first, begin: Math.min(...attempts.map(({ begin }) => begin)) }
}

export function lineageOf(history: History): Lineage {
  const origins = new Map<string, OperationOf<'create'> | OperationOf<'fork'>>()
  for (const [key, attempts] of Map.groupBy(ofVerb(history, 'create'), (create) => create.key))
    origins.set(key, requestOf(attempts))
  for (const operation of ofVerb(history, 'fork')) {
    if (origins.has(operation.key)) throw new Error(`the key ${operation.key} was used twice`)
    origins.set(operation.key, operation)
  }
  const snapshots = new Map<string, Cut>()
  for (const { outcome, sandbox, begin, end } of ofVerb(history, 'snapshot'))
    if (outcome.is === 'ok') snapshots.set(outcome.snapshot, { source: sandbox, begin, end })
  const forks = new Map<string, Cut>()
  for (const fork of ofVerb(history, 'fork'))
    forks.set(fork.key, { source: fork.sandbox, begin: fork.begin, end: effectEnd(fork) })

  const members = new Map<string, Member>()
  const makers = new Map<string, Member['origin']>()
  for (const origin of origins.values())
    if (origin.outcome.is === 'ok')
      for (const id of 'sandbox' in origin.outcome ? [origin.outcome.sandbox] : origin.outcome.children)
        makers.set(id, origin)
  for (const { sandboxes } of looks(history))
    for (const { id, key } of sandboxes) if (key !== undefined) makers.set(id, origins.get(key))
  /** A fork has it from its source. */
  const wakes = (origin: Member['origin']): boolean =>
    origin?.op === 'fork' ? wakes(makers.get(origin.sandbox)) : (origin?.wakes ?? false)
  const meet = (id: string, origin: Member['origin'], knownAt: number) => {
    const cut =
      origin?.op === 'fork'
        ? forks.get(origin.key)
        : origin?.from === undefined
          ? undefined
          : snapshots.get(origin.from)
    if (origin?.op === 'create' && origin.from !== undefined && cut === undefined)
      throw new Error(`${id} was made from ${origin.from}, which the history does not know`)
    const known = members.get(id)
    if (known === undefined) members.set(id, { id, origin, knownAt, cut, wakes: wakes(origin) })
    else known.knownAt = Math.min(known.knownAt, knownAt)
  }
  for (const origin of origins.values()) {
    if (origin.outcome.is !== 'ok') continue
    const ids = 'sandbox' in origin.outcome ? [origin.outcome.sandbox] : origin.outcome.children
    for (const id of ids) meet(id, origin, origin.end)
  }
  for (const { end, sandboxes } of looks(history))
    for (const { id, key, state } of sandboxes) {
      const isWhole = state === 'Running' || state === 'Paused'
      meet(id, key === undefined ? undefined : origins.get(key), isWhole ? end : Number.POSITIVE_INFINITY)
    }

  return {
    members,
    cutsOf(sandbox) {
      const cuts = new Set([...snapshots.values(), ...forks.values()].filter(({ source }) => source === sandbox))
      return [...cuts].map((cut) => ({
        cut,
        children: [...members.values()].filter((member) => member.cut === cut).map(({ id }) => id),
      }))
    },
  }
}
