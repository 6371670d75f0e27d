import { type Finding, precedes, type Span, when } from './finding.ts'

export interface Write extends Span {
  value: string | null
}
export interface Read extends Span {
  value: string | null
}

/** A value with all that shows when it was the present one: its write and its reads. */
interface Cluster {
  value: string | null
  /** End of the first of them to end: by then it had been written. */
  firstEnd: number
  /** Begin of the last of them to begin: it was the present one at some time after that. */
  lastBegin: number
}

const isForward = ({ firstEnd, lastBegin }: Cluster) => firstEnd < lastBegin
const quote = (value: string | null) => (value === null ? 'no file' : JSON.stringify(value.slice(0, 80)))

/**
 * Whether the operations on one register can have happened one after the other, each at some moment between its begin and its end
 * (linearizability). Every value is written once; a write with an unknown outcome has the end Infinity and may not have happened.
 *
 * Exact, by Gibbons and Korach (Testing Shared Memories, 1997): the zones of two values, from `firstEnd` to `lastBegin` where that
 * is forward, must not overlap, and a backward zone must not lie within a forward one.
 */
export function checkRegister(name: string, writes: readonly Write[], reads: readonly Read[]): Finding[] {
  const findings: Finding[] = []
  const written = new Map(writes.map((write) => [write.value, write]))
  if (written.size !== writes.length) throw new Error(`a value was written twice to ${name}`)
  const clusters = new Map<string | null, Cluster>()
  const add = (value: string | null, span: Span) => {
    const cluster = clusters.get(value) ?? { value, firstEnd: Number.POSITIVE_INFINITY, lastBegin: -Infinity }
    cluster.firstEnd = Math.min(cluster.firstEnd, span.end)
    cluster.lastBegin = Math.max(cluster.lastBegin, span.begin)
    clusters.set(value, cluster)
  }
  for (const read of reads) {
    const write = written.get(read.value)
    if (write === undefined || precedes(read, write))
      findings.push({
        fault: 'mixed',
        text: `${name} held ${quote(read.value)} at ${when(read)}, which nobody had written`,
      })
    else add(read.value, read)
  }
  for (const write of writes) if (write.end !== Infinity || clusters.has(write.value)) add(write.value, write)

  const all = [...clusters.values()]
  for (const [index, one] of all.entries())
    for (const other of all.slice(index + 1)) {
      if (!areAtOdds(one, other)) continue
      const [old, replacement] = one.lastBegin > other.lastBegin ? [one, other] : [other, one]
      findings.push({
        fault: 'stale',
        text: `${name} still held ${quote(old.value)} at ${when({ begin: old.lastBegin, end: Infinity })}, although ${quote(replacement.value)} had replaced it by ${when({ begin: replacement.firstEnd, end: Infinity })}`,
      })
    }
  return findings
}

function areAtOdds(one: Cluster, other: Cluster): boolean {
  if (isForward(one) && isForward(other)) return one.firstEnd < other.lastBegin && other.firstEnd < one.lastBegin
  if (isForward(one)) return isWithin(other, one)
  return isForward(other) && isWithin(one, other)
}

const isWithin = (backward: Cluster, forward: Cluster): boolean =>
  forward.firstEnd < backward.lastBegin && backward.firstEnd < forward.lastBegin
